"""Resizing without antialiasing, with the coordinates and kernels of torch's ``interpolate`` (align_corners=False)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from osediff_exp.degradations.checks import Range, checked_around_one, checked_choice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from osediff_exp.degradations.base import Image

MODES = ("area", "bilinear", "bicubic")
_DIRECTIONS = ("up", "down", "keep")
_CV2_MODES = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}  # OpenCV's cubic has torch's a = -0.75


def _as_image(array: npt.ArrayLike) -> Image:
    return np.asarray(array, dtype=np.float32)  # OpenCV's results carry no types; never a copy


def _pool_rows(image: Image, num_rows: int) -> Image:
    """Average rows [floor(i r), ceil((i + 1) r)) into row i, r = rows / num_rows (adaptive average pooling along one axis)."""
    i, rows = np.arange(num_rows), image.shape[0]
    start, end = i * rows // num_rows, -((i + 1) * -rows // num_rows)
    length = end - start
    pooled = image[start]
    for k in range(1, int(length.max())):
        longer = np.flatnonzero(length > k)
        pooled[longer] += image[start[longer] + k]
    pooled *= (1.0 / length).astype(np.float32).reshape(-1, 1, 1)
    return pooled


def _area(image: Image, height: int, width: int) -> Image:
    # Rows are contiguous, columns are not: pool rows, turn the picture over, pool rows again.
    turned = cv2.transpose(_pool_rows(image, height))
    return _as_image(cv2.transpose(_pool_rows(_as_image(turned), width)))


def resize(image: Image, height: int, width: int, mode: str) -> Image:
    """Resize (H, W, 3) to (height, width, 3); ``mode`` is one of MODES. "area" is torch's: adaptive average pooling, also upwards."""
    if (height, width) == image.shape[:2]:
        return image
    if mode == "area":
        return _area(image, height, width)
    return _as_image(cv2.resize(image, (width, height), interpolation=_CV2_MODES[mode]))


def rescale(image: Image, scale: float, mode: str) -> Image:
    """Resize (H, W, 3) by a factor to (floor(scale H), floor(scale W), 3).

    As in torch the coordinates follow the factor itself, not the ratio of the rounded sizes; OpenCV does the same when given the
    factor alone, but rounds the size, so that at most one row and column is surplus. One departure: at factors that change the
    size by less than a pixel (one draw in a thousand at 512 px) torch and OpenCV differ on when to copy, which shifts the far end of
    the picture by less than a pixel.
    """
    height, width = max(1, int(image.shape[0] * scale)), max(1, int(image.shape[1] * scale))
    unchanged = mode == "bilinear" and (height, width) == image.shape[:2]  # torch copies then, whatever the factor
    if mode == "area" or scale == 1.0 or unchanged or min(image.shape[:2]) * scale < 1.0:
        return resize(image, height, width, mode)
    resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=_CV2_MODES[mode])
    return _as_image(np.ascontiguousarray(resized[:height, :width]))


def draw_mode(rng: np.random.Generator) -> str:
    """Draw one of MODES, each with probability 1/3."""
    return MODES[rng.integers(len(MODES))]


@dataclass(frozen=True, kw_only=True)
class RandomScale:
    """A random resize factor: ``directions`` gives the probabilities of up, down and keep; ``factor`` the lowest and the highest."""

    directions: Mapping[str, float]
    factor: Range

    def __post_init__(self) -> None:
        object.__setattr__(self, "directions", checked_choice("resize.directions", self.directions, _DIRECTIONS))
        object.__setattr__(self, "factor", checked_around_one("resize.factor", self.factor))

    def draw(self, rng: np.random.Generator) -> float:
        """Draw the direction, then the factor: uniform in [1, high] upwards, in [low, 1] downwards."""
        direction = _DIRECTIONS[rng.choice(len(_DIRECTIONS), p=list(self.directions.values()))]
        if direction == "keep":
            return 1.0
        return rng.uniform(1.0, self.factor[1]) if direction == "up" else rng.uniform(self.factor[0], 1.0)
