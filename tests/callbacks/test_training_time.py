"""How long a training takes is counted over all its calls."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tiny_parts import make_data, make_module, make_terms, make_trainer

from osediff_exp.callbacks import training_time
from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.training_time import TrainingTime
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.tasks.resuming import Start, start_of

LAST = Path("checkpoints") / "last.ckpt"


def test_only_the_time_between_set_up_and_end_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(training_time, "time", type("Clock", (), {"perf_counter": staticmethod(lambda: now)}))
    clock, nothing = TrainingTime(before=7.0), Any
    assert clock.seconds == 7.0
    clock.setup(nothing, nothing, "fit")
    now = 103.0
    checkpoint: dict[str, Any] = {}
    clock.on_save_checkpoint(nothing, nothing, checkpoint)
    assert checkpoint == {"train_seconds": 10.0}
    clock.teardown(nothing, nothing, "fit")
    now = 200.0
    clock.setup(nothing, nothing, "validate")
    assert (clock.seconds, clock.before) == (10.0, 7.0)


def test_a_training_that_goes_on_counts_on(backbone: Backbone, tmp_path: Path) -> None:
    first, resume = TrainingTime(), OmegaConf.create({"resume": "auto"})
    assert start_of(resume, tmp_path) == Start()
    train(tmp_path, backbone, first, steps=2)
    start = start_of(resume, tmp_path)
    assert (start.checkpoint, start.steps) == (str(tmp_path / LAST), 2)
    assert 0 < start.seconds <= first.seconds
    second = TrainingTime(before=start.seconds)
    began = time.perf_counter()
    train(tmp_path, backbone, second, steps=4, resume=start.checkpoint)
    assert start.seconds < second.seconds <= start.seconds + time.perf_counter() - began


def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"png")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    for name, reason in (("absent.ckpt", "there is no such file"), ("photo.png", "is no checkpoint"), ("other.ckpt", "is no checkpoint")):
        with pytest.raises(UserError, match=f"resume=.*{name}:? {reason}.*last.ckpt") as raised:
            start_of(OmegaConf.create({"resume": str(tmp_path / name)}), tmp_path)
        assert "\n" not in str(raised.value)
    assert start_of(OmegaConf.create({"resume": None}), tmp_path) == Start()


def train(folder: Path, backbone: Backbone, clock: TrainingTime, *, steps: int, resume: str | None = None) -> None:
    module = make_module(backbone, terms=make_terms(backbone, "mse"), max_steps=steps)
    data = make_data(folder / "photos", batch_size=1, num_val=1)
    trainer = make_trainer(folder, callbacks=[LastCheckpoint(every=2), clock])
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
