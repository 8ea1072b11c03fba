"""LoRA layers that compute W x + s B A x as one product with W + s B A wherever that is cheaper, and otherwise without PEFT's detours.

PEFT's layers call three layers and add. Without gradients (the score network's estimate, validation, restoring) adding the weights first
costs nothing per pixel; the values are those of PEFT's layers but for rounding. With gradients one product has the gradient of all of W to
compute, which pays for small layers in bf16 on a CPU alone, where most of a call is no arithmetic (docs/adr/0022).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from peft.tuners.lora import layer as peft_layers
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.models.layouts import is_channels_last

_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain_lora() -> Iterator[None]:
    """Let every LoRA layer compute as PEFT's own for a while: to count its operations, and to compare with it."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


SMALL = 4
"""With gradients weights are added where in * out is at most so many times r (in + out), a place's products in LoRA's own layers."""

TINY = 1 << 15
"""In mixed precision on a CPU weights of so many numbers are added for any number of places: a call costs more than its products."""


class _Merging:
    """What the two layers share: whether one product may, and should, stand for three, its weight, and the three without detours."""

    def _alone(self: Any, extra: tuple[Any, ...]) -> str | None:
        """Return the name of the one adapter at work, or None where PEFT's own layer must compute."""
        adapters = [name for name in self.active_adapters if name in self.lora_A]
        if _plain.get() or extra or len(adapters) != 1 or self.merged or self.disable_adapters or self.lora_variant:
            return None
        return adapters[0] if isinstance(self.lora_dropout[adapters[0]], nn.Identity) else None

    def _merged(self: Any, x: Tensor, adapter: str, places: int) -> Tensor | None:
        """Return W + s B A in W's shape, or None where adding weights would be dearer or rougher, for ``places`` outputs of a channel.

        The size of the batch has no say: a picture comes out the same alone and among others.

        Mixed precision: on a CPU only, and from a W in float32. The sum is rounded once, as W is without it: an update smaller than bf16
        resolves moves some weights by a step and leaves the others, and is right on average.
        """
        base = self.base_layer
        a, b = self.lora_A[adapter], self.lora_B[adapter]
        if base._forward_hooks or base._forward_pre_hooks or b.bias is not None or base.weight.dtype != a.weight.dtype:
            return None
        mixed = _mixed(x)
        if (x.device.type != "cpu" or a.weight.dtype != torch.float32) if mixed else x.dtype != a.weight.dtype:
            return None
        outputs = base.weight.shape[0]
        inputs = base.weight.numel() // outputs
        tiny = mixed and inputs * outputs <= TINY
        if places * (inputs + outputs) <= inputs * outputs and not tiny:  # adding costs r in out; LoRA's own layers r (in + out) a place
            return None
        if torch.is_grad_enabled() and not (mixed and inputs * outputs <= SMALL * a.weight.shape[0] * (inputs + outputs)):
            return None
        if not mixed:
            return _sum(base.weight, a.weight, b.weight, self.scaling[adapter])
        with torch.autocast(x.device.type, enabled=False):
            return _sum(base.weight, a.weight, b.weight, self.scaling[adapter]).to(torch.get_autocast_dtype(x.device.type))

    def _forward(self: Any, x: Tensor, places: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        adapter = self._alone((*args, *kwargs))
        if adapter is None:
            own: Tensor = super().forward(x, *args, **kwargs)  # type: ignore[misc]
            return own
        base = self.base_layer
        merged = self._merged(x, adapter, places)
        if merged is not None:
            # The layer's own call keeps to its padding, which tiling changes for a while.
            found: Tensor = F.linear(x, merged, base.bias) if merged.ndim == 2 else base._conv_forward(x, merged, base.bias)
            return found
        if _mixed(x):  # PEFT would bring x to float32, and autocast back
            return _plus(base(x), self.lora_A[adapter](x), self.lora_B[adapter], self.scaling[adapter])
        return super().forward(x)  # type: ignore[misc,no-any-return]


def _plus(y: Tensor, u: Tensor, b: nn.Linear | nn.Conv2d, scale: float) -> Tensor:
    """Return y + s B u; on a CPU as one matrix product, for maps (B, C, h, w) where they lie with channels last: on so few numbers a
    convolution takes twice as long as a product."""
    maps = y.ndim == 4
    if y.device.type != "cpu" or b.bias is not None or (maps and not (is_channels_last(y) and is_channels_last(u))):
        return torch.add(y, b(u), alpha=scale)
    if maps:
        y, u = y.permute(0, 2, 3, 1), u.permute(0, 2, 3, 1)
    found = torch.addmm(y.flatten(0, -2), u.flatten(0, -2), b.weight.flatten(1).t(), alpha=scale).view(y.shape)
    return found.permute(0, 3, 1, 2) if maps else found


def _mixed(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type)


def _sum(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return W + s B A, laid out in memory as W is: with channels last, flattening W and A as they lie copies nothing."""
    if last := is_channels_last(weight):
        weight, a = weight.permute(0, 2, 3, 1), a.permute(0, 2, 3, 1)
    added = torch.addmm(weight.flatten(1), b.flatten(1), a.flatten(1), alpha=scale).view(weight.shape)
    return added.permute(0, 3, 1, 2) if last else added


class LoRALinear(_Merging, peft_layers.Linear):
    """PEFT's LoRA of a linear layer; one matrix product where that is cheaper."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._forward(x, x[0].numel() // x.shape[-1], args, kwargs)


class LoRAConv2d(_Merging, peft_layers.Conv2d):
    """PEFT's LoRA of a convolution; one convolution where that is cheaper."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base: Any = self.base_layer
        if base.groups != 1:
            return super().forward(x, *args, **kwargs)
        return self._forward(x, x.shape[-2] * x.shape[-1] // (base.stride[0] * base.stride[1]), args, kwargs)


MERGING_LAYERS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: LoRALinear, nn.Conv2d: LoRAConv2d}
"""What takes the place of which layer, as PEFT's ``LoraConfig`` wants it."""
