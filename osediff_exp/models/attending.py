"""diffusers' seam for attention: what an :class:`Attention` layer projects goes through a function of ours."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F

Attend = Callable[[Attention, Tensor, Tensor, Tensor], Tensor]
"""``attend(layer, q, k, v)`` for q (B, n, C), k and v (B, m, C) returns (B, n, C)."""


class Attending:
    """A processor for layers of transformer blocks, self and cross, and for those on maps (B, C, h, w) with a norm and a residual."""

    def __init__(self, attend: Attend) -> None:
        self.attend = attend

    @staticmethod
    def serves(layer: Attention) -> bool:
        """Return whether ``layer`` has none of what other models than Stable Diffusion's have: norms of q, k or the text, or by place."""
        return not (layer.spatial_norm or layer.norm_cross or layer.norm_q or layer.norm_k)

    def __call__(
        self,
        layer: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
        temb: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        # diffusers warns where a processor does not name what a block hands on: attentions on maps ignore temb, nothing here has masks.
        assert attention_mask is None
        x = hidden_states.flatten(2).transpose(1, 2) if hidden_states.ndim == 4 else hidden_states
        if layer.group_norm is not None:
            x = layer.group_norm(x.transpose(1, 2)).transpose(1, 2)
        seen = x if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = layer.to_q(x), layer.to_k(seen), layer.to_v(seen)
        output: Tensor = layer.to_out[1](layer.to_out[0](self.attend(layer, q, k, v)))
        if hidden_states.ndim == 4:
            output = output.transpose(1, 2).unflatten(2, hidden_states.shape[-2:])
        if layer.residual_connection:
            output = output + hidden_states
        return output if layer.rescale_output_factor == 1 else output / layer.rescale_output_factor


# diffusers asks for the signature at every call: kept here, it takes a fifth of the time.
Attending.__call__.__signature__ = inspect.signature(Attending.__call__)  # type: ignore[attr-defined]


def by_heads(layer: Attention, x: Tensor) -> Tensor:
    """(B, n, C) -> (B, heads, n, C / heads)."""
    return x.unflatten(2, (layer.heads, -1)).transpose(1, 2)


def dot_product_attention(layer: Attention, q: Tensor, k: Tensor, v: Tensor, logits: Tensor | None = None) -> Tensor:
    """Return softmax(q k^T * scale + logits) v of every head, (B, n, C)."""
    q, k, v = (by_heads(layer, x) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=logits, scale=layer.scale).transpose(1, 2).flatten(2)
