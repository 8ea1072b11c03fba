"""The photos that come with the installation: colour photos inside the packages scikit-image and scikit-learn.

They let every task run without a download. The packages are located, never imported (importing them takes a second and more). Three
whole photos are held out for validation; their crops (128 pixels, disjoint within a photo) lie where the mean gradient is largest.

Left out: retina.jpg (blurred, black rim) and the drawings and grey pictures of scikit-image.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal

from osediff_exp.data.sources import Picture
from osediff_exp.errors import UserError

SAMPLE_CROP = 128  # pixels; the corners below are chosen for this size
_FOLDERS = {"scikit-image": ("skimage", "data"), "scikit-learn": ("sklearn", "datasets/images")}


@dataclass(frozen=True)
class SamplePhoto:
    """One photo: its file inside the package, licence as that package states it, split, and (top, left) of its validation crops."""

    file: str
    package: str
    licence: str
    split: Literal["train", "val"]
    corners: tuple[tuple[int, int], ...] = ()


SAMPLE_PHOTOS = (
    SamplePhoto("astronaut.png", "scikit-image", "public domain (NASA)", "train"),
    SamplePhoto("rocket.jpg", "scikit-image", "public domain (SpaceX)", "train"),
    SamplePhoto("hubble_deep_field.jpg", "scikit-image", "public domain (NASA)", "train"),
    SamplePhoto("ihc.png", "scikit-image", "no known copyright restrictions (CMMI)", "train"),
    SamplePhoto("motorcycle_left.png", "scikit-image", "not stated (Middlebury 2014 stereo benchmark)", "train"),
    SamplePhoto("motorcycle_right.png", "scikit-image", "not stated (Middlebury 2014 stereo benchmark)", "train"),
    SamplePhoto("china.jpg", "scikit-learn", "CC-BY-2.0 (danielbuechele)", "train"),
    SamplePhoto("chelsea.png", "scikit-image", "CC0 (Stefan van der Walt)", "val", ((0, 152), (136, 124), (8, 24), (128, 252))),
    SamplePhoto("coffee.png", "scikit-image", "CC0 (Rachel Michetti)", "val", ((188, 0), (268, 456), (200, 316))),
    SamplePhoto("flower.jpg", "scikit-learn", "CC-BY-2.0 (vultilion)", "val", ((188, 240), (60, 236), (160, 368))),
)


@dataclass(frozen=True, kw_only=True)
class SampleSource:
    """The packaged photos of one split as an image list.

    Args:
        split: ``train``: whole photos; ``val``: the held-out photos, one picture per fixed crop (``coffee_0``, ``coffee_1``, ...);
            another validation size than 128 takes windows round the same centres.
        weight: relative probability of this list in the training mixture.
    """

    split: Literal["train", "val"]
    weight: float = 1.0
    key: str = "data"

    def pictures(self) -> list[Picture]:
        """Return the pictures in the order of the table.

        Raises:
            UserError: a package that carries the photos is not installed.
        """
        return [picture for photo in SAMPLE_PHOTOS if photo.split == self.split for picture in _pictures_of(photo)]


def _pictures_of(photo: SamplePhoto) -> list[Picture]:
    path = _folder_of(photo.package) / photo.file
    if not photo.corners:
        return [Picture(path, path.stem)]
    half = SAMPLE_CROP // 2
    return [Picture(path, f"{path.stem}_{number}", (top + half, left + half)) for number, (top, left) in enumerate(photo.corners)]


def _folder_of(package: str) -> Path:
    module, folder = _FOLDERS[package]
    spec = PathFinder.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(f"data=sample needs the photos inside {package}, which is not installed: pip install {package}, or use data=folder")
    return Path(spec.origin).parent / folder
