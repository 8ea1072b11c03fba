"""Frozen weights as mixed precision wants them, rounded once: autocast keeps the rounded copy of a weight that trains alone, and only
for one of its blocks, so that it rounds every frozen weight again at each call."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 1 << 20
"""Numbers of a weight up to which its copy is kept: rounding a larger one costs little beside its products, and the copy much memory."""

_COPY = "_rounded"  # an attribute of the weight: networks that share weights share copies, and a dictionary takes three times as long


def rounded(weight: Tensor) -> Tensor:
    """Return ``weight`` in the dtype of the autocast block around the call; as it is without one, where it trains or is large, off the CPU.

    The copy is kept as long as ``weight`` lives, and made again when that was written to (a write through ``.data`` is not seen).
    """
    if weight.requires_grad or weight.dtype != torch.float32 or weight.device.type != "cpu" or weight.numel() > LARGEST:
        return weight
    if not torch.is_autocast_enabled("cpu"):
        return weight
    key = weight._version, weight.data_ptr(), torch.get_autocast_dtype("cpu")
    made_from, copy = getattr(weight, _COPY, (None, weight))
    if made_from != key:
        copy = weight.detach().to(key[-1])
        setattr(weight, _COPY, (key, copy))
    return copy
