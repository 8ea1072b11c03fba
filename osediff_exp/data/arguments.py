"""Checks of what the user sets for the data, each a one-line UserError that names the key."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from osediff_exp.data.sources import Source

MULTIPLE = 8  # the VAE's down-sampling factor: every picture's sides are multiples of it


def check_arguments(
    sides: Mapping[str, tuple[int, int]], *, reduce_to: int | None, counts: Mapping[str, int], verify: str, bad_images: str
) -> None:
    """Check sizes against each other, counts and choices.

    Args:
        sides: key of ``data`` -> the side of a crop, and the scale of the degradation that such crops go through.
        reduce_to, verify, bad_images: see :class:`osediff_exp.data.datamodule.RestorationDataModule`.
        counts: name -> what must be at least 1.

    Raises:
        UserError: a value is impossible; the message proposes one.
    """
    for key, (size, scale) in sides.items():
        unit = math.lcm(MULTIPLE, scale)
        if size < unit or size % unit:
            raise UserError(f"data.{key}={size} must be a multiple of {unit}: try {max(unit, round(size / unit) * unit)}")
        if reduce_to is not None and reduce_to < size:
            raise UserError(f"data.reduce_to={reduce_to} would make photos smaller than data.{key}={size}: set it to {size} or more")
    for key, count in counts.items():
        if count < 1:
            raise UserError(f"{key} must be at least 1, got {count}")
    for key, value, choices in (("verify", verify, ("header", "full")), ("bad_images", bad_images, ("refuse", "skip"))):
        if value not in choices:
            raise UserError(f"data.{key}={value} is unknown: use {' or '.join(choices)}")


def mixing_weights(sources: Sequence[Source]) -> list[float]:
    """Return the weights of the training image lists.

    Raises:
        UserError: one is negative, or all are 0.
    """
    weights = [float(source.weight) for source in sources]
    if min(weights, default=0) < 0 or sum(weights) <= 0:
        raise UserError(f"the weights of the training image lists must be >= 0 and not all 0, got {weights}")
    return weights
