"""ST-LPIPS's blur, which takes the place of strides, with a leaner and, on a CPU, a faster way to its gradient for trainings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BlurDownsample(nn.Module):
    """Low-pass filter (1, 2, 1) x (1, 2, 1) / 16 on a mirrored border of 2 px, then every second pixel: H -> (H + 1) // 2 + 1.

    Attributes:
        lean: keep no map for the backward pass.
        single_precision: give float32's values and gradients under autocast too, rounded once: on a CPU the backward pass of a filter by
            channels is slower in bf16.
    """

    filt: Tensor
    single_precision = False
    lean = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0]) / 4.0
        self.register_buffer("filt", torch.outer(taps, taps).expand(channels, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.lean:
            found: Tensor = _Blur.apply(x, self.filt, self.single_precision)
            return found
        if self.single_precision and x.dtype != torch.float32:
            with torch.autocast(x.device.type, enabled=False):
                return _blurred(x.float(), self.filt).to(x.dtype)
        return _blurred(x, self.filt)


def _blurred(x: Tensor, filt: Tensor) -> Tensor:
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), filt, stride=2, groups=x.shape[1])


class _Blur(torch.autograd.Function):
    """The blur is linear, so no map is needed for its gradient; PyTorch's padding and convolution keep a copy of the input each.

    Its taps are powers of two: in half precision the forward pass gives float32's values, rounded once, and is the faster one.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, filt: Tensor, single_precision: bool) -> Tensor:
        ctx.save_for_backward(filt)
        ctx.sides, ctx.dtype, ctx.single_precision = x.shape[-2:], x.dtype, single_precision
        return _blurred(x, filt)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (filt,) = ctx.saved_tensors
        rest = [(side + 1) % 2 for side in ctx.sides]  # of an even side the last padded row or column is not seen
        if ctx.single_precision:
            gradient = gradient.float()
        x = F.conv_transpose2d(gradient, filt.to(gradient.dtype), stride=2, groups=len(filt), output_padding=rest)
        return _unreflected(_unreflected(x, -2), -1).to(ctx.dtype, copy=True), None, None


def _unreflected(x: Tensor, dim: int) -> Tensor:
    """Return, as a view of x, which it overwrites, the gradient of what was padded by two mirrored places at both ends of ``dim``."""
    length = x.shape[dim] - 4
    inner = x.narrow(dim, 2, length)
    for mirrored, place in ((1, 1), (0, 2), (length + 2, length - 2), (length + 3, length - 3)):
        inner.narrow(dim, place, 1).add_(x.narrow(dim, mirrored, 1))
    return inner
