"""Self-attention of a tile that also sees a miniature of the rest of the picture (docs/adr/0010).

Untiled, a place attends to the whole picture. A tile alone sees only itself, and neighbours come to different results.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from osediff_exp.models.attending import Attend, Attending, dot_product_attention


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
            return dot_product_attention(layer, q, k, v, logits[None, None, None])

        with self._attending(attend):
            yield

    def _measure(self, layer: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = q.shape
        q, k, v = (x.flatten(0, 1)[None] for x in (q, k, v))
        self.context[layer] = k, v
        return dot_product_attention(layer, q, k, v).view(shape)

    @contextmanager
    def _attending(self, attend: Attend) -> Iterator[None]:
        before = [layer.processor for layer in self.layers]
        for layer in self.layers:
            layer.processor = Attending(attend)
        try:
            yield
        finally:
            for layer, processor in zip(self.layers, before, strict=True):
                layer.processor = processor
