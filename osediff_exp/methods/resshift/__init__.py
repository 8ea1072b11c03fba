"""ResShift: a chain from the low-quality latent to the high-quality one (Yue et al., NeurIPS 2023; arXiv 2307.12348)."""
