"""PASD: pixel-aware Stable Diffusion (Yang et al., ECCV 2024, arXiv 2308.14469)."""
