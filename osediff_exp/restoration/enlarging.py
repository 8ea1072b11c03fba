"""From low-quality pixels to what the networks see, and back to the asked size."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.data.images import ByteImage, enlarge_bicubic


def low_quality(picture: ByteImage, *, scale: int, min_side: int) -> ByteImage:
    """Enlarge (h, w, 3) uint8 by ``scale`` with Pillow's bicubic, as in training.

    Where the result's shorter side would be below ``min_side`` pixels, the picture is enlarged to fit beforehand, as the released code does
    (``process_size``): networks trained on large crops do badly on small ones. A picture that keeps its size is returned as it is.
    """
    height, width = picture.shape[:2]
    least = math.ceil(min_side / scale)
    if min(height, width) < least:
        factor = least / min(height, width)
        height, width = max(least, round(height * factor)), max(least, round(width * factor))
        picture = enlarge_bicubic(picture, height, width)
    return picture if scale == 1 else enlarge_bicubic(picture, height * scale, width * scale)


def pad_to_multiple(picture: ByteImage, multiple: int) -> ByteImage:
    """Mirror (H, W, 3) at its lower and right borders until both sides are multiples; a picture smaller than the pad is mirrored again."""
    height, width = picture.shape[:2]
    below, right = -height % multiple, -width % multiple
    return np.pad(picture, ((0, below), (0, right), (0, 0)), mode="reflect") if below or right else picture


def as_network_input(pictures: list[ByteImage]) -> Tensor:
    """Return B pictures (H, W, 3) uint8 of one size as (B, 3, H, W) float32 in [0, 1]."""
    height, width = pictures[0].shape[:2]
    batch = torch.empty(len(pictures), 3, height, width)
    for place, picture in zip(batch, pictures, strict=True):
        place.copy_(torch.from_numpy(picture).permute(2, 0, 1))
    return batch.div_(255)


def as_bytes(pictures: list[ByteImage]) -> Tensor:
    """Return B pictures (H, W, 3) uint8 of one size as (B, 3, H, W) uint8; a single one is no copy."""
    return torch.from_numpy(pictures[0][None] if len(pictures) == 1 else np.stack(pictures)).permute(0, 3, 1, 2)


def resize_to(pictures: Tensor, height: int, width: int) -> Tensor:
    """Reduce (B, 3, H, W) in [0, 1] by bicubic interpolation with antialiasing; the right size is returned as it is."""
    if pictures.shape[-2:] == (height, width):
        return pictures
    return F.interpolate(pictures, (height, width), mode="bicubic", antialias=True).clamp_(0, 1)
