"""LoRA layers that, where no gradient is asked for, compute W x + s B A x as one product with W + s B A wherever that is cheaper.

PEFT's layers call three layers and add. Without gradients (the score network's estimate, validation, restoring) adding the weights first
costs nothing per pixel; the values are those of PEFT's layers but for rounding. With gradients PEFT's own layers compute: one product there
too, with a backward pass of its own, gained nothing that could be told from noise (experiments/performance).
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

_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain_lora() -> Iterator[None]:
    """Let every LoRA layer compute as PEFT's own for a while: to count its operations, and to compare with it."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


class _Merging:
    """What the two layers share: whether one product may, and should, stand for three, and its weight."""

    def _merged(self: Any, x: Tensor, places: int, extra: tuple[Any, ...]) -> Tensor | None:
        """Return W + s B A in W's shape, or None where PEFT's own layer must compute a sample's ``places`` outputs of each channel.

        The size of the batch has no say: a picture comes out the same alone and among others.

        Mixed precision is left to PEFT: rounded to half precision the sum would swallow small updates, and the score network would
        differ from the prior by the rounding of all its weights.
        """
        base = self.base_layer
        adapters = [name for name in self.active_adapters if name in self.lora_A]
        if torch.is_grad_enabled() or _plain.get() or extra or len(adapters) != 1 or self.merged or self.disable_adapters:
            return None
        adapter = adapters[0]
        a, b = self.lora_A[adapter], self.lora_B[adapter]
        if not x.dtype == base.weight.dtype == a.weight.dtype or torch.is_autocast_enabled(x.device.type):
            return None
        hooked = base._forward_hooks or base._forward_pre_hooks
        if hooked or b.bias is not None or self.lora_variant or not isinstance(self.lora_dropout[adapter], nn.Identity):
            return None
        weight = base.weight.flatten(1)
        outputs, inputs = weight.shape
        if places * (inputs + outputs) <= inputs * outputs:  # adding weights costs r in out; LoRA's own layers r (in + out) a place
            return None
        scale = self.scaling[adapter]
        return torch.addmm(weight, b.weight.flatten(1), a.weight.flatten(1), alpha=scale).view_as(base.weight)


class LoRALinear(_Merging, peft_layers.Linear):
    """PEFT's LoRA of a linear layer; without gradients one matrix product where that is cheaper."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base: Any = self.base_layer
        merged = self._merged(x, x[0].numel() // x.shape[-1], (*args, *kwargs))
        return super().forward(x, *args, **kwargs) if merged is None else F.linear(x, merged, base.bias)


class LoRAConv2d(_Merging, peft_layers.Conv2d):
    """PEFT's LoRA of a convolution; without gradients one convolution where that is cheaper."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        base: Any = self.base_layer
        places = x.shape[-2] * x.shape[-1] // (base.stride[0] * base.stride[1])
        merged = self._merged(x, places, (*args, *kwargs)) if base.groups == 1 else None
        # The layer's own call keeps to its padding, which tiling changes for a while.
        return super().forward(x, *args, **kwargs) if merged is None else base._conv_forward(x, merged, base.bias)


MERGING_LAYERS: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: LoRALinear, nn.Conv2d: LoRAConv2d}
"""What takes the place of which layer, as PEFT's ``LoraConfig`` wants it."""
