"""Networks as PyTorch's kernels for CPUs want them: the same weights and, but for rounding, the same values (docs/adr/0022).

Those kernels are uneven: convolutions gain where channels come last (a few percent in float32, a factor of two and more in bf16),
GroupNorm's backward pass loses there a factor of eight, and in bf16 the backward pass of a small attention takes four times as long as in
float32. Each part gets what suits it.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from osediff_exp.models.attending import Attending, dot_product_attention
from osediff_exp.models.blur import BlurDownsample
from osediff_exp.models.layouts import group_norm, is_channels_last

FEW_PLACES = 640
"""Attention over at most so many places is differentiated faster in float32 (measured: 36, 144 and 576 of them; at 1,024 it is slower)."""


def suit_cpu(*networks: nn.Module) -> None:
    """Make ``networks``, in place, fast on a CPU: under bf16 autocast, or in float32 without gradients (with them float32 gains nothing).

    Parameters stay the same objects, so views share them as before.
    """
    for network in networks:
        for layer in network.modules():
            if type(layer) is nn.GroupNorm:
                layer.__class__ = PlanarGroupNorm
            elif isinstance(layer, Attention) and isinstance(layer.processor, AttnProcessor2_0) and Attending.serves(layer):
                layer.processor = Attending(_attend)
            elif isinstance(layer, BlurDownsample):
                layer.single_precision = True
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class PlanarGroupNorm(nn.GroupNorm):
    """A GroupNorm that gives maps, and their gradients, back in the layout that they came in, and computes in the one that is fast.

    That is with channels first where it will be differentiated; without gradients its pass is as fast with channels last, and bringing a
    large map from one layout into the other takes ten times as long as it.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and is_channels_last(x):
            planes: Tensor = _Planes.apply(x)
            return super().forward(planes).contiguous(memory_format=torch.channels_last)
        return group_norm(x, self.weight, self.bias, self.num_groups, self.eps)


class _Planes(torch.autograd.Function):
    """A map brought to channels first, its gradient back to channels last: PyTorch leaves gradients as they come, and what takes them
    (convolutions, sums with other gradients) then converts, more slowly."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)


def _attend(layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    half = q.dtype
    if half == torch.float32 or q.shape[1] > FEW_PLACES or not torch.is_grad_enabled():
        return dot_product_attention(layer, q, k, v)
    with torch.autocast(q.device.type, enabled=False):
        return dot_product_attention(layer, q.float(), k.float(), v.float()).to(half)
