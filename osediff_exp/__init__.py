"""osediff_exp: the laboratory for one-step diffusion super-resolution (OSEDiff, NeurIPS 2024)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from osediff_exp._torchvision import install_finder

if TYPE_CHECKING:
    from osediff_exp.restoration.restorer import Restorer

__all__ = ["Restorer", "__version__"]

__version__ = "0.1.0"

install_finder()


def __getattr__(name: str) -> Any:
    """Import what Python users want at its first use: the command line answers without torch."""
    if name == "Restorer":
        return import_module("osediff_exp.restoration.restorer").Restorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
