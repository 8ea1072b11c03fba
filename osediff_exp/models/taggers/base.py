"""What every tagger answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from osediff_exp.errors import UserError


class Tag(NamedTuple):
    """A word or two for something in a picture, and the tagger's confidence in [0, 1]."""

    name: str
    score: float


class Photo(Protocol):
    """A whole photo that need not be decoded to know whether it has been seen."""

    @property
    def name(self) -> str:
        """What the photo is called."""

    @property
    def key(self) -> str:
        """Name of its content: equal where the files are equal."""

    def load(self) -> Tensor:
        """Return the picture (3, H, W) in [0, 1]."""


class Tagger(ABC):
    """Tags of pictures: frozen, deterministic, and each picture's tags depend on that picture only.

    A tagger with thresholds of its own, as RAM has one per tag, leaves out what falls under them.
    """

    @abstractmethod
    def __call__(self, images: Tensor, max_tags: int) -> list[list[Tag]]:
        """Return at most ``max_tags`` tags of each image (B, 3, H, W) in [0, 1], the surest first; it runs where the images are."""

    def of_photos(self, photos: Sequence[Photo], max_tags: int, *, like: Tensor) -> list[list[Tag]]:
        """Return the tags of whole photos, whatever their sizes; it runs where ``like`` is."""
        return [self(photo.load()[None].to(like.device), max_tags)[0] for photo in photos]

    def image_embeds(self, images: Tensor) -> Tensor:
        """Return the tagger's features (B, N, E) of images (B, 3, H, W) in [0, 1], where the images are; UserError where it has none."""
        raise UserError("this method needs image features, which this tagger does not give: choose prompt=tagged or prompt=ram")
