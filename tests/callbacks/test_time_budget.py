"""A budget of minutes ends a training behind a whole step, saved and logged as its last, and a training that goes on counts on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny_parts import make_data, make_module, make_terms, make_trainer, write_photos

from osediff_exp.bars import UNBOUNDED_STEPS
from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.time_budget import TimeBudget
from osediff_exp.cli.command import run_command
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.models.backbone import Backbone
from osediff_exp.module import RestorationModule
from osediff_exp.tasks.resuming import start_of


def train(folder: Path, backbone: Backbone, budget: TimeBudget, *, steps: int = UNBOUNDED_STEPS) -> RestorationModule:
    module = make_module(backbone, terms=make_terms(backbone, "mse"), max_steps=steps)
    data = make_data(folder / "photos", batch_size=1, num_val=1)
    make_trainer(folder, callbacks=[LastCheckpoint(every=100), budget]).fit(module, datamodule=data, weights_only=True)
    return module


def test_the_step_behind_the_budget_is_the_last_and_is_saved(backbone: Backbone, tmp_path: Path) -> None:
    budget = TimeBudget(minutes=1e-9)
    assert not budget.spent
    assert train(tmp_path, backbone, budget).steps_taken == 2  # the first one used it up
    start = start_of(OmegaConf.create({"resume": "auto"}), tmp_path)
    assert start.steps == 2
    assert 0 < start.step_seconds <= budget.seconds
    assert TimeBudget(minutes=1e-9, before=start.step_seconds).spent
    assert not TimeBudget(minutes=5, before=start.step_seconds).spent


@pytest.mark.parametrize("minutes", [None, 100])
def test_without_one_or_with_enough_the_steps_decide_and_time_is_counted(backbone: Backbone, tmp_path: Path, minutes: float | None) -> None:
    budget = TimeBudget(minutes=minutes, before=7.0)
    assert train(tmp_path, backbone, budget, steps=1).steps_taken == 1
    assert budget.seconds > 7.0
    assert not budget.spent


def test_steps_are_unbounded_by_minutes_alone() -> None:
    register_resolvers()
    for keys, expected in (
        ("budget_minutes: 3", UNBOUNDED_STEPS),
        ("budget_minutes: 3, budget_samples: 80", 10),
        ("budget_minutes: null", 40),
    ):
        config = OmegaConf.create(f"trainer: {{{keys}, batch_size: 8, max_steps: '${{steps:40}}'}}")
        assert config.trainer.max_steps == expected


def test_the_command_ends_with_it_and_goes_on_to_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos", 2)
    data = ("data=folder", "data.root=photos", "data.crop_size=32", "data.val_size=32", "data.num_workers=0", "metrics=psnr_ssim")
    command = ["loss/terms=[mse]", "trainer.budget_minutes=1e-9", "trainer.batch_size=1", *data, "resume=auto", "hydra.run.dir=out"]
    for _ in range(2):
        assert run_command(command) == 0
        result = json.loads((tmp_path / "out" / "result.json").read_text())
        assert (result["steps"], result["max_sampling_steps"]) == (2, 1)
        assert result["step_seconds"] > 0
