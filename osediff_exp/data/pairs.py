"""Training pairs and validation pairs: photo in, batch entries {lq, hq, index, name, path} out.

Every entry is a pure function of a seed and a sample number (training) or a picture's name (validation).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from osediff_exp.data.cache import ImageLoader
from osediff_exp.data.images import FloatImage, crop, crop_round, enlarge_bicubic, to_bytes, to_float
from osediff_exp.data.sources import Picture, with_unique_names
from osediff_exp.randomness import numpy_generator

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from osediff_exp.degradations.base import Degradation

Sample = dict[str, Any]
"""``lq``, ``hq``: float32 (3, S, S) in [0, 1]; ``index``: int; ``name``, ``path``: str; in validation also ``lr``: float32 (3, s, s)."""


def to_tensor(image: FloatImage) -> Tensor:
    """(H, W, 3) float32 to (3, H, W) float32."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float32))


class TrainingPairs(Dataset[Sample]):
    """The training stream: sample i, for any i >= 0, is a pure function of (seed, i) and the image lists.

    An image list is chosen by weight, an image uniformly inside it, then a random crop, a horizontal flip (probability 1/2) and a
    degradation, each from a generator of its own purpose (so one may be changed without moving the others).

    Args:
        lists: image lists, each at least one path.
        weights: relative probability of each list (OSEDiff: equal per list).
        degradation: see docs/adr/0001.
        crop_size: side S in pixels; every image must be at least as large.
        seed: of the stream.
        load: decodes a path to (H, W, 3) uint8.
    """

    def __init__(
        self,
        *,
        lists: Sequence[Sequence[Path]],
        weights: Sequence[float],
        degradation: Degradation,
        crop_size: int,
        seed: int,
        load: ImageLoader | None = None,
    ) -> None:
        self.lists = lists
        self.cumulative = np.cumsum(np.asarray(weights, dtype=np.float64) / np.sum(weights))
        self.degradation = degradation
        self.crop_size = crop_size
        self.seed = seed
        self.load = load or ImageLoader()

    def path_of(self, i: int) -> Path:
        """Return the image of sample i."""
        rng = numpy_generator(self.seed, "image", i)
        k = min(int(np.searchsorted(self.cumulative, rng.random(), side="right")), len(self.lists) - 1)
        return self.lists[k][int(rng.integers(len(self.lists[k])))]

    def __getitem__(self, i: int) -> Sample:
        """Return sample i; see :data:`Sample`."""
        if i < 0:
            raise IndexError(f"samples are numbered from 0, got {i}")
        path = self.path_of(i)
        hq = self.hq(i)
        pair = self.degradation(hq, numpy_generator(self.seed, "degradation", i))
        return {"lq": to_tensor(pair.lq), "hq": to_tensor(hq), "index": i, "name": path.stem, "path": str(path)}

    def hq(self, i: int) -> FloatImage:
        """Return the ground truth of sample i, (S, S, 3) in [0, 1], without the work of degrading it."""
        return to_float(self._view(self.load(self.path_of(i)), i))

    def _view(self, image: np.ndarray, i: int) -> np.ndarray:
        rng, size = numpy_generator(self.seed, "crop", i), self.crop_size
        top, left = (int(rng.integers(side - size + 1)) for side in image.shape[:2])
        window = crop(image, top=top, left=left, height=size, width=size)
        return window[:, ::-1] if numpy_generator(self.seed, "flip", i).random() < 0.5 else window


class ValidationPairs(Dataset[Sample]):
    """Fixed synthetic pairs: each picture's crop, degraded with a generator keyed by (seed, picture name).

    ``lq`` is the bicubic enlargement of the 8-bit ``lr`` (not the recipe's own resize), so that the bicubic baseline is the input.
    Entry k does not depend on which other pictures are in the set.

    Args:
        pictures: where to crop; each photo must be at least as large as the crop.
        degradation: see docs/adr/0001.
        size: side of the crop in pixels, a multiple of 8 and of the degradation's scale.
        seed: ``val_seed``, apart from the training seed so that arms with other seeds share the pictures.
        load: decodes a path to (H, W, 3) uint8.
    """

    def __init__(
        self, *, pictures: Sequence[Picture], degradation: Degradation, size: int, seed: int, load: ImageLoader | None = None
    ) -> None:
        self.pictures = with_unique_names(pictures)
        self.degradation = degradation
        self.size = size
        self.seed = seed
        self.load = load or ImageLoader()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, k: int) -> Sample:
        """Return pair k with ``lr``; see :data:`Sample`. Its index is k, whichever rank shows it."""
        picture = self.pictures[k]
        hq = to_float(self._view(picture))
        lr = to_bytes(self.degradation(hq, numpy_generator(self.seed, "val", picture.name)).lr)
        lq = enlarge_bicubic(lr, self.size, self.size)
        images = {"lq": to_tensor(to_float(lq)), "hq": to_tensor(hq), "lr": to_tensor(to_float(lr))}
        return {**images, "index": k, "name": picture.name, "path": str(picture.path)}

    def _view(self, picture: Picture) -> np.ndarray:
        return crop_round(self.load(picture.path), self.size, picture.centre)
