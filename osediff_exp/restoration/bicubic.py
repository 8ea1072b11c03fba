"""Plain enlargement: the baseline that every restorer is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from osediff_exp.data.images import enlarge_bicubic, to_bytes, to_float
from osediff_exp.data.pairs import to_tensor
from osediff_exp.restoration.base import ImageRestorer

if TYPE_CHECKING:
    from torch import Tensor


class BicubicRestorer(ImageRestorer):
    """Pillow's bicubic enlargement of the 8-bit picture: what the generator of a one-step restorer sees."""

    def __call__(self, lr: Tensor, *, scale: int, names: list[str]) -> Tensor:
        """See :meth:`ImageRestorer.__call__`; the result is on the 8-bit grid."""
        height, width = (scale * side for side in lr.shape[-2:])
        pictures = [to_bytes(picture.permute(1, 2, 0).numpy()) for picture in lr]
        return torch.stack([to_tensor(to_float(enlarge_bicubic(picture, height, width))) for picture in pictures])
