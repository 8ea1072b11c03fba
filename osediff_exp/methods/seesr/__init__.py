"""SeeSR: semantics-aware super-resolution (Wu et al., CVPR 2024, arXiv 2311.16518)."""
