"""DAPE's LoRA: rank 8, factor 1 / 8, on q and v of every Swin block and on query and key of the head's cross-attention.

The released weights are loralib's. Its ``MergedLinear`` keeps q's and v's matrices together: lora_A (2 r, C) is q's rows, then v's, and
lora_B (2 C, r) likewise; k has none. An adapted layer computes (W + s B A) x here, so that merging it is taking that sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from osediff_exp.errors import UserError

RANK, ALPHA = 8, 1  # SeeSR, section 4.1, and loralib's default, which the released code leaves
_QKV = (True, False, True)  # which thirds of the layer's rows are adapted
_WHOLE = (True,)


def low_rank(lora_a: Tensor, lora_b: Tensor, blocks: tuple[bool, ...]) -> Tensor:
    """Return B A, block by block of the layer's rows; blocks without LoRA are zeros: (outputs, inputs).

    Args:
        lora_a: (adapted blocks * r, inputs).
        lora_b: (adapted blocks * outputs / blocks, r).
        blocks: which of the layer's equal blocks of rows are adapted.
    """
    products = iter(b @ a for a, b in zip(lora_a.chunk(sum(blocks)), lora_b.chunk(sum(blocks)), strict=True))
    rows = lora_b.shape[0] // sum(blocks)
    return torch.cat([next(products) if adapted else lora_a.new_zeros(rows, lora_a.shape[1]) for adapted in blocks])


def blocks_of(layer: str) -> tuple[bool, ...]:
    """Return which blocks of rows of the layer called ``layer`` the released code adapts."""
    return _QKV if layer.endswith(".qkv") else _WHOLE


def is_adapted(layer: str) -> bool:
    """Tell whether the released code adapts the layer called ``layer``."""
    return layer.endswith((".attn.qkv", ".crossattention.self.query", ".crossattention.self.key"))


def merge(weights: Mapping[str, Tensor], lora: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return ``weights`` with LoRA merged: W + B A / r for every layer of ``lora`` (``LAYER.lora_A``, ``LAYER.lora_B``).

    Raises:
        UserError: a layer is not among the weights, has another shape, or lacks one of its two matrices.
    """
    merged = dict(weights)
    for layer in sorted({name.rpartition(".")[0] for name in lora}):
        a, b = (lora.get(f"{layer}.{part}") for part in ("lora_A", "lora_B"))
        weight = weights.get(f"{layer}.weight")
        if a is None or b is None or weight is None:
            raise UserError(f"the LoRA weights do not fit: {layer} lacks {'lora_A' if a is None else 'lora_B' if b is None else 'weight'}")
        blocks = blocks_of(layer)
        rank = a.shape[0] // sum(blocks)
        if a.shape[1] != weight.shape[1] or b.shape[1] != rank or b.shape[0] * len(blocks) != weight.shape[0] * sum(blocks):
            raise UserError(f"the LoRA weights do not fit: {layer} is {tuple(weight.shape)}, its LoRA {tuple(b.shape)} x {tuple(a.shape)}")
        merged[f"{layer}.weight"] = weight + (ALPHA / rank * low_rank(a.float(), b.float(), blocks)).to(weight.dtype)
    return merged


class LowRank(nn.Module):
    """The parametrization W -> W + B A / r of an adapted layer; starts as the identity (B is zero), as in loralib."""

    def __init__(self, weight: Tensor, blocks: tuple[bool, ...], *, rank: int) -> None:
        super().__init__()
        outputs, inputs = weight.shape
        self.blocks, self.factor, self.active = blocks, ALPHA / rank, True
        self.lora_A = nn.Parameter(torch.empty(sum(blocks) * rank, inputs, device=weight.device))
        self.lora_B = nn.Parameter(torch.zeros(outputs // len(blocks) * sum(blocks), rank, device=weight.device))
        nn.init.kaiming_uniform_(self.lora_A, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        if not self.active:
            return weight
        return weight + (self.factor * low_rank(self.lora_A, self.lora_B, self.blocks)).to(weight.dtype)


def add_lora(network: nn.Module, *, rank: int = RANK) -> None:
    """Give ``network`` (a RAM) DAPE's LoRA in place; it alone requires gradients then.

    Raises:
        UserError: the rank is below 1.
    """
    if rank < 1:
        raise UserError(f"a LoRA of rank {rank} trains nothing: give at least 1")
    network.requires_grad_(False)
    for name, layer in list(network.named_modules()):
        if isinstance(layer, nn.Linear) and is_adapted(name):
            parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, blocks_of(name), rank=rank))


def lora_layers(network: nn.Module) -> dict[str, LowRank]:
    """Return the LoRA of every adapted layer by the layer's name."""
    marker = ".parametrizations.weight.0"
    return {name.removesuffix(marker): part for name, part in network.named_modules() if isinstance(part, LowRank)}


def lora_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return what trains."""
    return [parameter for part in lora_layers(network).values() for parameter in part.parameters()]


def merge_in_place(network: nn.Module) -> None:
    """Make the sums the weights: the network is a plain RAM again."""
    for name in lora_layers(network):
        parametrize.remove_parametrizations(network.get_submodule(name), "weight", leave_parametrized=True)


@contextmanager
def without_lora(network: nn.Module) -> Iterator[None]:
    """Let ``network`` compute as the RAM that it was adapted from: DAPE's frozen teacher, without a second copy."""
    parts = lora_layers(network).values()
    for part in parts:
        part.active = False
    try:
        yield
    finally:
        for part in parts:
            part.active = True
