"""Ctrl-C and termination signals during a training."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import SIGTERMException
from tiny_parts import make_data, make_module, make_terms, make_trainer

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.interruption import StopAfterStep
from osediff_exp.callbacks.metrics_csv import MetricsCsv
from osediff_exp.models.backbone import Backbone
from osediff_exp.module import RestorationModule


class SignalIn(pl.Callback):
    """Sends this process the signals at the start of a batch, or of a validation (``batch`` None)."""

    def __init__(self, *numbers: int, batch: int | None) -> None:
        self._numbers, self._batch = numbers, batch

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == self._batch:
            self._send()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._batch is None:
            self._send()

    def _send(self) -> None:
        for number in self._numbers:
            os.kill(os.getpid(), number)


def train(folder: Path, backbone: Backbone, *others: pl.Callback, resume: Path | None = None) -> RestorationModule:
    """Four steps of two micro-batches each."""
    module = make_module(backbone, terms=make_terms(backbone, "mse"), max_steps=4, accumulate=2)
    data, stopper = make_data(folder / "photos", batch_size=1, accumulate=2, num_val=1), StopAfterStep()
    trainer = make_trainer(folder, callbacks=[LastCheckpoint(every=100), stopper, *others], validate_every=6)
    with stopper.watching(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return module


def trained(module: RestorationModule) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in module.generator.named_parameters() if value.requires_grad}


def test_ctrl_c_finishes_the_step_and_going_on_gives_the_same_weights(backbone: Backbone, tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(SystemExit) as raised:  # what Lightning makes of KeyboardInterrupt
        train(tmp_path / "stopped", backbone, SignalIn(signal.SIGINT, batch=2))
    assert isinstance(raised.value.__context__, KeyboardInterrupt)
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["steps_taken"] == 2  # the second step has batches 2 and 3
    resumed = train(tmp_path / "stopped", backbone, resume=last)
    whole = train(tmp_path / "whole", backbone)
    assert resumed.steps_taken == whole.steps_taken == 4
    for name, value in trained(whole).items():
        assert torch.equal(trained(resumed)[name], value), name
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_termination_signal_does_the_same(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(SIGTERMException):
        train(tmp_path, backbone, SignalIn(signal.SIGTERM, batch=1))
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["steps_taken"] == 1


@pytest.mark.parametrize("sends", [SignalIn(signal.SIGINT, signal.SIGINT, batch=2), SignalIn(signal.SIGINT, batch=None)])
def test_a_second_signal_and_one_in_a_validation_stop_at_once(sends: SignalIn, backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        train(tmp_path, backbone, sends)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_failure_after_the_signal_is_the_interruption(backbone: Backbone, tmp_path: Path) -> None:
    class Fail(pl.Callback):
        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("a loader's worker has ended")

    with pytest.raises(KeyboardInterrupt) as raised:
        train(tmp_path, backbone, SignalIn(signal.SIGINT, batch=0), Fail())
    assert "worker has ended" in str(raised.value.__cause__)


class FullDisk:
    """A trainer whose checkpoint does not fit."""

    def __init__(self, folder: Path) -> None:
        self.loggers = [MetricsCsv(path=str(folder / "metrics.csv"))]
        self.is_global_zero = True
        self.lightning_module = torch.nn.Module()

    def save_checkpoint(self, path: Path) -> None:
        path.write_text("half")
        raise OSError("no space left on device")


def test_a_checkpoint_brings_the_figures_and_a_failed_one_leaves_no_scrap(tmp_path: Path) -> None:
    trainer = FullDisk(tmp_path)
    trainer.loggers[0].log_metrics({"x": 1.0}, step=1)
    with pytest.raises(OSError):
        LastCheckpoint(every=1, folder=str(tmp_path / "checkpoints")).save(trainer, 1)  # type: ignore[arg-type]
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,x", "1,1"]
    assert list((tmp_path / "checkpoints").iterdir()) == []
