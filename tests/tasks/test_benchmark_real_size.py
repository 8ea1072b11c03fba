"""The benchmark of Stable Diffusion's size, on an architecture of the same kind that is small enough for a test."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.tasks.benchmark.real_size import random_backbone, real_size

register_resolvers()
CONF = Path(__file__).parents[2] / "conf"


def test_a_random_backbone_computes_finite_numbers_that_the_seed_fixes() -> None:
    first, same, other = (random_backbone("embedded:tiny", device="cpu", dtype=torch.float32, seed=seed) for seed in (1, 1, 2))
    z, t, prompts = torch.randn(1, 4, 16, 16), torch.tensor([5]), torch.randn(1, 77, first.text_encoder.config.hidden_size)
    with torch.no_grad():
        outputs = [backbone.unet(z, t, prompts).sample for backbone in (first, same, other)]
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])
    assert outputs[0].isfinite().all()
    assert outputs[0].std() > 1e-3


@pytest.mark.slow
def test_a_step_is_measured_with_and_without_checkpointing() -> None:
    small = ["size=64", "num_steps=1", "architecture=embedded:tiny", "checkpointing=[true,false]"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["task=benchmark", *(f"benchmark.real_size.{setting}" for setting in small)])
    figures = real_size(config)
    plain, checkpointed = (float(figures[f"real_b1_{way}_tflop"]) for way in ("plain", "checkpointed"))  # type: ignore[arg-type]
    assert 1.05 * plain < checkpointed < 2 * plain  # what was forgotten is computed again
    assert figures["real_b1_checkpointed_step_seconds"] > 0  # type: ignore[operator]
    assert figures["real_b1_plain_peak_gib"] > 0  # type: ignore[operator]
