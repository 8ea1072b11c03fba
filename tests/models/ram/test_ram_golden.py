"""The network is the released one: figures of the authors' code on weights that a rule makes (shared/data/ram_golden)."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from osediff_exp.models.taggers.ram.layout import build_ram

GOLDEN = Path(__file__).parents[4] / "shared" / "data" / "ram_golden"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the reference is not in {GOLDEN}"),
]
_NORMS = ("norm1.weight", "norm2.weight", "LayerNorm.weight")


def golden_weights(*, lora: bool) -> dict[str, Tensor]:
    """Return the weights of the reference's rule, 212 M of them."""

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for name, shape in json.loads((GOLDEN / "keys.json").read_text()).items():
            norm = name.endswith("norm.weight") or any(part in name for part in _NORMS)
            scale = 1.0 if name == "label_embed" else 0.05 if "lora_" in name else 0.1 if norm else 0.03
            value = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode()))) * scale + norm
            yield name, torch.zeros_like(value) if name.endswith("lora_B") and not lora else value

    return dict(tensors())


@pytest.mark.parametrize("lora", [False, True], ids=["RAM", "DAPE"])
def test_logits_and_embeddings_are_the_references(lora: bool) -> None:
    network = build_ram(golden_weights(lora=lora))
    assert sum(parameter.numel() for parameter in network.parameters()) == 212_117_045
    with torch.inference_mode():
        found = network(torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(0)))
    expected = np.load(GOLDEN / ("with_lora.npz" if lora else "without_lora.npz"))
    assert found.image_embeds.shape == (1, network.shape.num_tokens, 512) == (1, 145, 512)
    assert relative(found.logits, expected["logits"]) < 1e-4
    assert relative(found.image_embeds[0, :4], expected["image_embeds_first"]) < 1e-4
    assert float(found.image_embeds.mean()) == pytest.approx(float(expected["image_embeds_mean"]), rel=1e-4)


def relative(found: Tensor, expected: np.ndarray) -> float:
    """Return the largest difference, as a share of the largest figure."""
    return float((found - torch.from_numpy(expected)).abs().max()) / float(np.abs(expected).max())
