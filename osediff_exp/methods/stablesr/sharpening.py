"""Real-ESRGAN's unsharp mask, which StableSR sharpens its training targets with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_RADIUS, _WEIGHT, _THRESHOLD = 25, 0.5, 10.0
_SIGMA = 0.3 * (_RADIUS - 1) + 0.8  # OpenCV's for a kernel of 51


def unsharp_mask(image: Tensor) -> Tensor:
    """Return sharpened pictures (B, 3, H, W) in [0, 1] of pictures in [0, 1] (Real-ESRGAN's USMSharp: radius 50, weight .5, threshold 10).

    x + .5 (x - blur(x)), but only near edges: where |x - blur(x)| exceeds 10/255, that mask itself blurred. Pixels at the border are
    repeated, where the released code mirrors them: a mirror needs pictures of more than 25 px.
    """
    residual = image - gaussian_blur(image)
    near_edges = gaussian_blur((residual.abs() * 255 > _THRESHOLD).to(image))
    sharp = (image + _WEIGHT * residual).clamp(0, 1)
    return near_edges * sharp + (1 - near_edges) * image


def gaussian_blur(image: Tensor) -> Tensor:
    """Return (B, C, H, W) blurred by a Gaussian of sigma 8 px, cut off after 25."""
    places = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    kernel = torch.exp(-places.square() / (2 * _SIGMA**2))
    kernel = (kernel / kernel.sum()).to(image)
    rows = F.pad(image, (_RADIUS, _RADIUS, _RADIUS, _RADIUS), mode="replicate").flatten(0, 1)[:, None]
    blurred = F.conv2d(F.conv2d(rows, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
    return blurred.view(image.shape)
