"""Sobel edge maps, for perceptual terms that look at edges besides pictures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def edge_map(image: Tensor) -> Tensor:
    """Return each channel's gradient magnitude, (B, C, H, W) in [-1, 1] -> (B, C, H, W) in [-1, 1.13], -1 where the picture is flat.

    Sobel kernels divided by 8: a step from -1 to 1 along an axis has magnitude 1, which is mapped to 1. The border is replicated.
    """
    taps = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]], dtype=image.dtype, device=image.device) / 8.0
    num = image.shape[1]
    kernels = torch.stack([taps, taps.T]).unsqueeze(1).repeat(num, 1, 1, 1)
    both = F.conv2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), kernels, groups=num).unflatten(1, (num, 2))
    # vector_norm, not a square root: its gradient is finite where the picture is flat.
    return 2.0 * torch.linalg.vector_norm(both, dim=2) - 1.0
