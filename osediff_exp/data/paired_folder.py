"""Validation on real pairs, as the field ships them: a folder of LR and a folder of HR images with matching names (test_LR, test_HR)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch.utils.data import Dataset

from osediff_exp.data.arguments import MULTIPLE
from osediff_exp.data.cache import ImageLoader
from osediff_exp.data.images import ByteImage, crop, enlarge_bicubic, read_size, to_float
from osediff_exp.data.pairs import Sample, to_tensor
from osediff_exp.data.sources import ImageSource, Picture
from osediff_exp.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

Size = tuple[int, int]


class PairedFolder(Dataset[Sample]):
    """Pairs (LR, HR) with the same stem, sorted by it.

    LR may be smaller by an integer factor (RealSR, DRealSR: 4) or of the same size. Where the HR size is no multiple of 8 (and of the
    factor), margins are cut off both images alike. ``lq`` is the bicubic enlargement of LR to HR size.

    Args:
        lr_root, hr_root: folders (or text files of paths).
        lr_key, hr_key: the configuration keys that set them, for messages.
        first: take only the first N pairs.
        load: decodes a path to (H, W, 3) uint8; it must not reduce.

    Raises:
        UserError: a folder is missing or empty, two files of a folder share a stem, or a picture has no partner.
    """

    def __init__(
        self,
        *,
        lr_root: str | None,
        hr_root: str | None,
        lr_key: str = "data.val_lr_root",
        hr_key: str = "data.val_hr_root",
        first: int | None = None,
        load: ImageLoader | None = None,
    ) -> None:
        lr, hr = by_stem(lr_root, lr_key), by_stem(hr_root, hr_key)
        _refuse_unmatched(lr, hr, lr_key, hr_key)
        _refuse_unmatched(hr, lr, hr_key, lr_key)
        self.pairs = [(lr[name], hr[name]) for name in sorted(lr)[:first]]
        self.load = load or ImageLoader()

    def __len__(self) -> int:
        return len(self.pairs)

    def keep(self, usable: Callable[[list[Picture]], list[Picture]]) -> None:
        """Drop the pairs of which ``usable`` does not return both pictures."""
        files = [Picture(path, path.stem) for pair in self.pairs for path in pair]
        kept = {picture.path for picture in usable(files)}
        self.pairs = [pair for pair in self.pairs if kept.issuperset(pair)]

    def sizes(self) -> set[Size]:
        """Return the (height, width) that occur among the HR pictures after cutting.

        Raises:
            UserError: a pair's sizes do not match by an integer factor.
        """
        return {_kept(hr_size := read_size(hr), _factor(read_size(lr), hr_size, hr)) for lr, hr in self.pairs}

    def __getitem__(self, k: int) -> Sample:
        """Return pair k: ``lq``, ``hq`` (3, H, W) and ``lr`` (3, H/f, W/f), float32 in [0, 1]; index k and name."""
        lr_path, hr_path = self.pairs[k]
        lr, hr = self.load(lr_path), self.load(hr_path)
        f = _factor(_size(lr), _size(hr), hr_path)
        lr, hr = _cut_pair(lr, hr, f)
        lq = enlarge_bicubic(lr, *_size(hr)) if f > 1 else lr
        images = {"lq": to_tensor(to_float(lq)), "hq": to_tensor(to_float(hr)), "lr": to_tensor(to_float(lr))}
        return {**images, "index": k, "name": hr_path.stem, "path": str(hr_path)}


def by_stem(root: str | None, key: str) -> dict[str, Path]:
    """Return the pictures of a folder (or text file of paths) by their file names without suffix.

    Raises:
        UserError: ``root`` is missing or empty, or two pictures share a stem.
    """
    found: dict[str, Path] = {}
    for picture in ImageSource(root=root, key=key).pictures():
        if (other := found.setdefault(picture.name, picture.path)) != picture.path:
            raise UserError(f"{key}={root} has two images named '{picture.name}': {other} and {picture.path}; keep one, pairs go by name")
    return found


def _refuse_unmatched(ours: Collection[str], theirs: Collection[str], our_key: str, their_key: str) -> None:
    if alone := sorted(set(ours) - set(theirs)):
        more = f" and {len(alone) - 3} more" if len(alone) > 3 else ""
        hint = nearest(alone[0], theirs)
        raise UserError(f"no partner in {their_key} for {', '.join(alone[:3])}{more} of {our_key}: pairs need the same file name.{hint}")


def _size(image: ByteImage) -> Size:
    return image.shape[0], image.shape[1]


def _factor(lr: Size, hr: Size, path: Path) -> int:
    f = hr[0] // lr[0]
    if f < 1 or hr != (f * lr[0], f * lr[1]):
        raise UserError(f"{path}: HR is {hr[1]} x {hr[0]} and LR {lr[1]} x {lr[0]}; HR must be a whole multiple of LR, e.g. 512 and 128")
    return f


def _kept(hr: Size, f: int) -> Size:
    unit = math.lcm(MULTIPLE, f)
    return hr[0] // unit * unit, hr[1] // unit * unit


def _cut_pair(lr: ByteImage, hr: ByteImage, f: int) -> tuple[ByteImage, ByteImage]:
    height, width = (side // f for side in _kept(_size(hr), f))
    top, left = (lr.shape[0] - height) // 2, (lr.shape[1] - width) // 2
    lr_window = crop(lr, top=top, left=left, height=height, width=width)
    return lr_window, crop(hr, top=f * top, left=f * left, height=f * height, width=f * width)
