"""osediff_exp: the laboratory for one-step diffusion super-resolution (OSEDiff, NeurIPS 2024)."""

from osediff_exp._torchvision import install_finder

__version__ = "0.1.0"

install_finder()
