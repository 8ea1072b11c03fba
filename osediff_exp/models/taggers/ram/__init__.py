"""RAM, the tagger of the paper, and DAPE, the same with LoRA: our own network for the released weights.

Y. Zhang et al., "Recognize Anything: A Strong Image Tagging Model", 2023 (arXiv 2306.03514); R. Wu et al., "SeeSR", CVPR 2024
(arXiv 2311.16518), section 3.1, for DAPE. Only what tags is built: RAM's captioning half is left out.
"""
