"""DiffBIR (Lin et al., "DiffBIR: Toward Blind Image Restoration with Generative Diffusion Prior", ECCV 2024; XPixelGroup/DiffBIR)."""
