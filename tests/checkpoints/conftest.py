"""Settings of a one-step generator on the tiny random backbone, and a trained one as it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_parts import Train
from tiny_parts import wake_lora

from osediff_exp.checkpoints.base import Call, Loaded, assemble
from osediff_exp.checkpoints.build import build_generator
from osediff_exp.checkpoints.fitting import trained_tensors
from osediff_exp.models.backbone import Backbone


@pytest.fixture(scope="session")
def settings(backbone_folder: Path) -> dict[str, Any]:
    """A configuration's parts that a checkpoint needs."""
    return {
        "backbone": {"loader": {"_target_": "osediff_exp.models.backbone.load_backbone", "sources": [str(backbone_folder)]}},
        "generator": {"_target_": "osediff_exp.models.generator.OneStepGenerator", "_partial_": True, "timestep": 250},
        "prompt": {"extractor": {"_target_": "osediff_exp.models.prompts.FixedPrompt", "prompt": "sharp photo"}},
    }


@pytest.fixture(scope="session")
def train(settings: dict[str, Any], backbone: Backbone) -> Train:
    """Return a function: a generator with the given settings whose trainable tensors all differ from their start."""

    cache: dict[str, Loaded] = {}

    def trained(**changes: Any) -> Loaded:
        if repr(changes) not in cache:
            cache[repr(changes)] = build(changes)
        return cache[repr(changes)]

    def build(changes: dict[str, Any]) -> Loaded:
        config = settings | {"generator": settings["generator"] | changes}
        torch.manual_seed(3)
        generator = build_generator(config, backbone)
        wake_lora(generator)
        tensors = {name: parameter.detach() + 0.01 * torch.randn_like(parameter) for name, parameter in trained_tensors(generator).items()}
        return assemble(config, tensors, trained_on=None, call=Call(backbone=backbone), steps=7, format="osediff_exp")

    return trained
