"""The photos that come with the package: 60 crops of 384 px to train on, 24 crops of 256 px to validate on, each of another photo.

They let every task run without a download. ``photos/manifest.csv`` names photo, package and licence of each; tools/make_photos.py makes
them. A validation picture's name is its photo's name: no two come from one photo, so the pictures are independent samples.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from osediff_exp.data.sources import Picture

FOLDER = Path(__file__).parent / "photos"


@dataclass(frozen=True)
class SamplePhoto:
    """One line of the manifest: the file below ``photos/``, the photo's name, its split, and where and under which licence it was found."""

    file: str
    photo: str
    split: Literal["train", "val"]
    package: str
    licence: str


def sample_photos() -> list[SamplePhoto]:
    """Return the manifest, in its order."""
    with (FOLDER / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [
            SamplePhoto(row["file"], row["photo"], row["split"], f"{row['package']} {row['version']}", row["licence"])  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        ]


@dataclass(frozen=True, kw_only=True)
class SampleSource:
    """The package's photos of one split as an image list.

    Args:
        split: ``train`` or ``val``; no photo is in both.
        weight: relative probability of this list in the training mixture.
    """

    split: Literal["train", "val"]
    weight: float = 1.0
    key: str = "data"

    def pictures(self) -> list[Picture]:
        """Return the pictures in the manifest's order."""
        return [Picture(FOLDER / photo.file, photo.photo) for photo in sample_photos() if photo.split == self.split]
