"""Luma as the evaluation protocol of the field defines it."""

from __future__ import annotations

import torch
from torch import Tensor


def luma_video_range(images: Tensor) -> Tensor:
    """Return BT.601 luma Y / 255, unrounded: (B, 3, H, W) RGB in [0, 1] -> (B, 1, H, W) float64 in [16/255, 235/255].

    ITU-R BT.601, 8-bit video range: Y = 16 + 65.481 R + 128.553 G + 24.966 B. float64, because SSIM subtracts nearly equal moments.
    """
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=images.device)
    luma = torch.einsum("bchw,c->bhw", images.double(), weights)
    return (luma[:, None] + 16.0) / 255.0


def luma_full_range(images: Tensor) -> Tensor:
    """Return full-range luma rounded to 8 bit: (B, 3, H, W) RGB in [0, 1] -> (B, H, W) float64, whole numbers 0..255.

    255 (0.299 R + 0.587 G + 0.114 B), the grey value NIQE is defined on (MATLAB's rgb2gray).
    """
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64, device=images.device)
    return torch.round(torch.einsum("bchw,c->bhw", images.double() * 255.0, weights))
