"""What the tests of every format compare."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from osediff_exp.checkpoints.base import Loaded
from osediff_exp.checkpoints.fitting import trained_tensors
from osediff_exp.models.generator import Generator
from osediff_exp.models.lora_layers import plain_lora

Train = Callable[..., Loaded]
"""Returns a trained generator of the given settings, loaded; each kind is built once and shared: leave it as it is."""


def picture() -> Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(8)) * 2 - 1


@torch.no_grad()
def output(loaded: Loaded, generator: Generator | None = None) -> Tensor:
    """Return what it restores, by PEFT's own arithmetic: with another order of sums nothing could be compared to the bit."""
    prompts = loaded.prompts(picture(), ["a", "b"])
    with plain_lora():
        return (generator or loaded.generator)(picture(), loaded.backbone.encode_prompts(prompts)).image


def assert_same(first: Loaded, second: Loaded) -> None:
    """Both have the same tensors, bit for bit, and the same outputs."""
    ours, theirs = trained_tensors(first.generator), trained_tensors(second.generator)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(output(first), output(second))
