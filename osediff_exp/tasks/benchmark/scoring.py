"""Scoring against the plain way: SSIM by an 11 x 11 convolution in double precision, as the toolbox behind the published scores does it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.metrics.color import luma_video_range
from osediff_exp.metrics.ssim_y import ssim_y
from osediff_exp.tasks.benchmark.side_by_side import Pair, side_by_side

_SIZE, _SIGMA = 11, 1.5


def plain_ssim(pred: Tensor, target: Tensor) -> Tensor:
    """Return what :func:`osediff_exp.metrics.ssim_y.ssim_y` does, (B,), with a convolution for each of the five local means."""
    offsets = torch.arange(_SIZE, dtype=torch.float64) - _SIZE // 2
    line = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    window = (torch.outer(line, line) / line.sum().square())[None, None]
    x, y = ((luma_video_range(images) * 255).round().double() / 255 for images in (pred, target))
    mu_x, mu_y, xx, yy, xy = (F.conv2d(image, window) for image in (x, y, x * x, y * y, x * y))
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mu_x * mu_y + c1) / (mu_x.square() + mu_y.square() + c1)
    structure = (2 * (xy - mu_x * mu_y) + c2) / (xx - mu_x.square() + yy - mu_y.square() + c2)
    return (luminance * structure.clamp(min=0)).mean(dim=(1, 2, 3))


def compare_scoring(target: Tensor, *, rounds: int) -> Pair:
    """Return the seconds of SSIM-Y of a noisy copy of ``target`` (1, 3, H, W) in [0, 1], both ways."""
    pred = (target + 0.02 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    return side_by_side(lambda: plain_ssim(pred, target), lambda: ssim_y(pred, target), rounds=rounds)
