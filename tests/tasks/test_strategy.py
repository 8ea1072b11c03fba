"""A single process trains without DDP, which would keep all its graphs at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from tiny_parts import make_trainer

from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.tasks.train import strategy_of


@pytest.mark.parametrize(
    ("changed", "strategy"),
    [
        ({"devices": 1}, SingleDeviceStrategy),
        ({"devices": 1, "strategy": "ddp_find_unused_parameters_true"}, SingleDeviceStrategy),
        ({"devices": 1, "strategy": "auto"}, SingleDeviceStrategy),
        ({}, DDPStrategy),
        ({"devices": 1, "num_nodes": 2}, DDPStrategy),
    ],
)
def test_the_gpu_recipe_on_one_device_is_not_distributed(tmp_path: Path, changed: dict[str, object], strategy: type) -> None:
    trainer = OmegaConf.merge(*(OmegaConf.load(conf_dir() / "trainer" / f"{name}.yaml") for name in ("cpu", "gpu")), changed)
    built = make_trainer(tmp_path, devices=trainer.devices, num_nodes=trainer.num_nodes, strategy=strategy_of(trainer))
    assert type(built.strategy) is strategy
