"""A checkpoint of this program to restore with."""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_parts import make_generator

from osediff_exp.models.backbone import Backbone


def save_checkpoint(backbone: Backbone, backbone_folder: Path, folder: Path, **recipe: int) -> Path:
    """Write a run folder whose checkpoint is of a generator that differs from its backbone; return ``folder``."""
    generator = make_generator(backbone)
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    trained = {name: weight for name, weight in generator.named_parameters() if weight.requires_grad}
    torch.save(
        {
            "state_dict": {f"generator.{name}": torch.full_like(weight, 0.01) for name, weight in trained.items()},
            "steps_taken": 3,
            "backbone": {"fingerprint": backbone.fingerprint(), "source": str(backbone_folder)},
            "config": {
                "backbone": {
                    "loader": {"_target_": "osediff_exp.models.backbone.load_backbone", "sources": [str(backbone_folder)]},
                    "recipe": recipe,
                },
                "generator": {"_target_": "osediff_exp.models.generator.OneStepGenerator", "_partial_": True, "timestep": 250},
                "prompt": {"extractor": {"_target_": "osediff_exp.models.prompts.FixedPrompt", "prompt": "sharp photo"}},
            },
        },
        path,
    )
    return folder
