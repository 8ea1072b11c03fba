"""Convolutions of 3 x 3 by Winograd's algorithm (Lavin and Gray, CVPR 2016), for float32 without gradients on a CPU (docs/adr/0024).

PyTorch's own kernel for a CPU multiplies as often as the definition says. NNPACK, which PyTorch's builds for x86 contain, transforms tiles
of 8 x 8 places and needs 64 products for 36 outputs in place of 324; its sums differ from the definition's by some 1e-5 of a map's standard
deviation. On a processor with AVX-512, which NNPACK does not use, oneDNN's kernel has twice the arithmetic: there nothing was measured, and
nothing changes.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.models.lean_layers import LeanConv2d

MIN_PLACES = 1024
"""Outputs of a channel from which on it is worth it: below, transforming the weights takes most of what it saves."""

TILE = 6
"""Outputs of a tile along one side."""

WORKSPACE = 128 << 20
"""Bytes that the transformed maps of one call may take; larger maps are computed in strips of whole tiles, to the same bits."""


@functools.cache
def winograd_serves() -> bool:
    """Tell whether this processor gains by it: one with AVX2 and without AVX-512, and a build of PyTorch that contains NNPACK."""
    has_nnpack = getattr(torch, "_nnpack_available", None)  # asking also initialises it: before, its convolution fails
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and has_nnpack is not None and bool(has_nnpack())


def winograd_layers(*networks: nn.Module) -> None:
    """Let ``networks``, in place, compute convolutions of 3 x 3 and stride 1 so wherever no gradient is asked for; to be called before
    :func:`osediff_exp.models.lean_layers.lean_layers`.

    Parameters stay the same objects. Maps leave these layers with channels first, and attention's on maps too.
    """
    for layer in (layer for network in networks for layer in network.modules()):
        if type(layer) is nn.Conv2d and _is_plain(layer):
            layer.__class__ = WinogradConv2d
        elif type(layer) is Attention and layer.residual_connection:
            layer.__class__ = ChannelsFirstAttention


def _is_plain(layer: nn.Conv2d) -> bool:
    ones = layer.stride, layer.dilation
    return layer.kernel_size == (3, 3) and ones == ((1, 1), (1, 1)) and layer.groups == 1 and layer.padding_mode == "zeros"


class ChannelsFirstAttention(Attention):
    """A VAE's attention, which hands on a transposed view: what is added to it would inherit that layout down to the picture."""

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the layer's output with channels first in memory."""
        found: Tensor = super().forward(*args, **kwargs).contiguous()
        return found


class WinogradConv2d(LeanConv2d):
    """A convolution of 3 x 3 and stride 1 by Winograd's algorithm, where no gradient is asked for; made by :func:`winograd_layers`."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding  # tiling changes it for a while
        if isinstance(padding, str) or max(padding) > 1 or self._differentiated(input, weight, bias) or not _computes(input, weight):
            return super()._conv_forward(input, weight, bias)
        places = [side + 2 * around - 2 for side, around in zip(input.shape[2:], padding, strict=True)]
        if min(places) < 1 or places[0] * places[1] < MIN_PLACES:
            return super()._conv_forward(input, weight, bias)
        # One by one, because NNPACK computes several pictures otherwise than one: a picture comes out the same alone and among others.
        found = [winograd_conv2d(picture, weight, bias, (padding[0], padding[1])) for picture in input.split(1)]
        return found[0] if len(found) == 1 else torch.cat(found)

    @staticmethod
    def _differentiated(*tensors: Tensor | None) -> bool:
        return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _computes(x: Tensor, weight: Tensor) -> bool:
    single = x.dtype == weight.dtype == torch.float32 and x.device.type == "cpu" and x.ndim == 4 and len(x) > 0
    return single and not torch.is_autocast_enabled("cpu") and winograd_serves()


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int], *, workspace: int = WORKSPACE) -> Tensor:
    """Return ``F.conv2d(x, weight, bias, padding=padding)`` for one picture, where :func:`winograd_serves`.

    Args:
        x: (1, C, H, W), float32 on the CPU.
        weight: (C', C, 3, 3).
        padding: rows and columns of zeros around, each 0 or 1.
        workspace: bytes for transformed maps; at least one row of tiles is computed at a time.
    """
    above, beside = padding
    height, width = x.shape[2] + 2 * above - 2, x.shape[3] + 2 * beside - 2
    row_of_tiles = 4 * (TILE + 2) ** 2 * -(-width // TILE) * (x.shape[1] + weight.shape[0])
    rows = TILE * max(1, workspace // row_of_tiles)
    if rows >= height:
        return _nnpack(x, weight, bias, padding)
    found = x.new_empty(1, weight.shape[0], height, width)
    for first in range(0, height, rows):
        last = min(first + rows, height)
        # Output row r sees the input's rows r - above to r - above + 2; those outside are zeros.
        start, stop = first - above, last - above + 2
        strip = x[:, :, max(start, 0) : min(stop, x.shape[2])]
        zeros = max(-start, 0), max(stop - x.shape[2], 0)
        if any(zeros):
            strip = F.pad(strip, (0, 0, *zeros))
        found[:, :, first:last] = _nnpack(strip, weight, bias, (0, beside))
    return found


def _nnpack(x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    return torch._nnpack_spatial_convolution(x.contiguous(), weight.contiguous(), bias, padding, (1, 1))  # type: ignore[attr-defined,no-any-return]
