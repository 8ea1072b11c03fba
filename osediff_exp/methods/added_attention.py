"""Attentions added to a U-Net or a control net without touching its code: SeeSR's look at image tokens, PASD's at control features.

A view of the network (:func:`osediff_exp.models.views.share_frozen`) gets wrapped layers in place of its own. The frozen weights stay the
backbone's, and other views know nothing of the wrapping.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from diffusers import ControlNetModel, Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from osediff_exp.errors import UserError

_FOLLOWED = (
    "num_attention_heads", "attention_head_dim", "in_channels", "num_layers", "norm_num_groups", "use_linear_projection",
    "only_cross_attention", "upcast_attention",
)  # fmt: skip


class Place(NamedTuple):
    """A layer of a network, ``layers[position]``, that an added attention may follow."""

    layers: nn.ModuleList
    position: int

    @property
    def layer(self) -> nn.Module:
        return self.layers[self.position]


class AddedAttention(nn.Module):
    """A layer of a network and an attention on its output; the output alone while there is nothing to look at.

    What is added computes in its own precision (float32: it trains), whatever the network's.

    Attributes:
        keys: what the attention looks at, (B, L, width); set by :func:`looking_at` for the duration of a call.
    """

    def __init__(self, layer: nn.Module, attention: Transformer2DModel) -> None:
        super().__init__()
        self.layer, self.attention = layer, attention
        self.keys: Tensor | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = self.layer(*args, **kwargs)
        if self.keys is None:
            return output
        features = output if isinstance(output, Tensor) else output[0]  # residual layers return a tensor, attentions a tuple
        own = next(self.attention.parameters()).dtype
        x = features.to(own).contiguous()  # channels last, its GroupNorm could crash: see carried_maps.trainable_input
        seen = self.attention(x, encoder_hidden_states=self.keys.to(own), return_dict=False)[0].to(features.dtype)
        return seen if isinstance(output, Tensor) else (seen, *output[1:])


@contextmanager
def looking_at(attentions: Sequence[AddedAttention], keys: Sequence[Tensor]) -> Iterator[None]:
    """Inside the block each attention looks at its own keys and values (B, L, width)."""
    for attention, seen in zip(attentions, keys, strict=True):
        attention.keys = seen
    try:
        yield
    finally:
        for attention in attentions:
            attention.keys = None


def text_attentions(network: UNet2DConditionModel | ControlNetModel) -> list[Place]:
    """Return the places of the text attentions in the order in which they compute: down, middle, up.

    Raises:
        UserError: the network has attentions of another kind than Stable Diffusion's.
    """
    blocks = [*network.down_blocks, network.mid_block, *getattr(network, "up_blocks", [])]
    return [Place(block.attentions, k) for block in blocks if reads_text(block) for k in range(len(block.attentions))]


def reads_text(block: nn.Module) -> bool:
    """Tell whether a block of a U-Net has text attentions; UserError where they are of another kind than Stable Diffusion's."""
    if not getattr(block, "has_cross_attention", False):
        return False
    for layer in block.attentions:  # type: ignore[union-attr]
        if not isinstance(layer, Transformer2DModel):
            kind = type(layer).__name__
            raise UserError(f"this method adds to Stable Diffusion's text attentions, but the backbone has {kind}: take another backbone")
    return True


def attention_like(attention: Transformer2DModel, *, width: int) -> Transformer2DModel:
    """Return a new attention of the sizes of ``attention`` that looks at ``width`` channels."""
    return silent_attention(**{name: attention.config[name] for name in _FOLLOWED}, cross_attention_dim=width)


def silent_attention(**settings: Any) -> Transformer2DModel:
    """Return a ``Transformer2DModel`` whose output equals its input: its last projection, before the residual, is zero."""
    attention = Transformer2DModel(**settings)
    for parameter in attention.proj_out.parameters():
        nn.init.zeros_(parameter)
    return attention


def add_attention(place: Place, attention: Transformer2DModel) -> AddedAttention:
    """Let ``attention`` follow the layer at ``place`` of a view, and return the two."""
    added = AddedAttention(place.layer, attention)
    place.layers[place.position] = added
    return added
