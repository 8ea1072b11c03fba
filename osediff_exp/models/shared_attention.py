"""Self-attention of a tile that also sees a miniature of the rest of the picture (docs/adr/0010).

Untiled, a place attends to the whole picture. A tile alone sees only itself, and neighbours come to different results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

Attend = Callable[[Attention, Tensor, Tensor, Tensor], Tensor]
"""``attend(layer, q, k, v)`` for (B, n, C) each returns (B, n, C)."""


class SharedAttention:
    """Keys and values of every self-attention of a U-Net: :meth:`measured` on a miniature, then :meth:`applied` to tiles."""

    def __init__(self, network: nn.Module) -> None:
        self.layers = [layer for layer in network.modules() if isinstance(layer, Attention) and not layer.is_cross_attention]
        self.context: dict[Attention, tuple[Tensor, Tensor]] = {}

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Inside the block keys and values are remembered; a batch attends as one picture."""
        with self._attending(self._measure):
            yield

    @contextmanager
    def applied(self, *, ratio: float) -> Iterator[None]:
        """Inside the block a tile attends to itself and to what is remembered, which stands for the rest of the picture.

        Args:
            ratio: the picture's area over the tile's, at least 1.
        """

        def attend(layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.context[layer]
            num_own, num_shared = k.shape[1], keys.shape[1]
            # Each remembered place stands for w places of the rest: exp(q k) counts w times, so log w is added to its logit.
            w = max((ratio - 1) * num_own / num_shared, 1e-6)
            logits = torch.zeros(num_own + num_shared, dtype=q.dtype, device=q.device)
            logits[num_own:] = math.log(w)
            k, v = (torch.cat([own, shared.expand(len(own), -1, -1)], dim=1) for own, shared in ((k, keys), (v, values)))
            return _attention(layer, q, k, v, logits[None, None, None])

        with self._attending(attend):
            yield

    def _measure(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = q.shape
        q, k, v = (x.flatten(0, 1)[None] for x in (q, k, v))
        self.context[layer] = k, v
        return _attention(layer, q, k, v, None).view(shape)

    @contextmanager
    def _attending(self, attend: Attend) -> Iterator[None]:
        before = [layer.processor for layer in self.layers]
        for layer in self.layers:
            layer.processor = _Processor(attend)
        try:
            yield
        finally:
            for layer, processor in zip(self.layers, before, strict=True):
                layer.processor = processor


class _Processor:
    """diffusers' seam for attention: layers of transformer blocks, and those on maps (B, C, h, w) with a norm and a residual."""

    def __init__(self, attend: Attend) -> None:
        self.attend = attend

    def __call__(self, layer: Attention, hidden_states: Tensor, *args: Any, temb: Tensor | None = None, **kwargs: Any) -> Tensor:
        # temb: diffusers warns where a processor does not name what a block hands on; attentions on maps ignore it.
        x = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
        if layer.group_norm is not None:
            x = layer.group_norm(x.transpose(1, 2)).transpose(1, 2)
        q, k, v = layer.to_q(x), layer.to_k(x), layer.to_v(x)
        output = layer.to_out[1](layer.to_out[0](self.attend(layer, q, k, v)))
        if hidden_states.ndim == 4:
            output = output.transpose(1, 2).unflatten(2, hidden_states.shape[-2:])
        return (output + hidden_states if layer.residual_connection else output) / layer.rescale_output_factor


def _attention(layer: Attention, q: Tensor, k: Tensor, v: Tensor, logits: Tensor | None) -> Tensor:
    q, k, v = (x.unflatten(2, (layer.heads, -1)).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=logits, scale=layer.scale).transpose(1, 2).flatten(2)
