"""What every tagger answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor


class Tag(NamedTuple):
    """A word or two for something in a picture, and the tagger's confidence in [0, 1]."""

    name: str
    score: float


class Tagger(ABC):
    """Tags of pictures: frozen, deterministic, and each picture's tags depend on that picture only.

    A tagger with thresholds of its own, as RAM has one per tag, leaves out what falls under them.
    """

    @abstractmethod
    def __call__(self, images: Tensor, max_tags: int) -> list[list[Tag]]:
        """Return at most ``max_tags`` tags of each image (B, 3, H, W) in [0, 1], the surest first; it runs where the images are."""
