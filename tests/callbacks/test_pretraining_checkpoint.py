"""Checkpoints of a pretraining are those of a training: on the disk, listed by checksum, the one before kept."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from osediff_exp.callbacks.checkpoint import PretrainingCheckpoint
from osediff_exp.checkpoints.integrity import LAST, PREVIOUS, SUMS, is_intact, newest_intact
from osediff_exp.runtime import quiet_libraries


class Line(pl.LightningModule):
    """One weight, trained by Lightning's own loop."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.weight * batch).square().sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_every_so_many_steps_and_the_one_before_stays(tmp_path: Path) -> None:
    quiet_libraries()
    trainer = pl.Trainer(
        max_steps=7, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[PretrainingCheckpoint(every=3, folder=str(tmp_path))],
    )  # fmt: skip
    trainer.fit(Line(), DataLoader(torch.ones(20, 1)))
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS, SUMS}
    steps = [torch.load(tmp_path / name, weights_only=True)["global_step"] for name in (LAST, PREVIOUS)]
    assert (steps, is_intact(tmp_path / LAST), is_intact(tmp_path / PREVIOUS)) == ([6, 3], True, True)
    (tmp_path / LAST).write_bytes(b"damaged")
    assert newest_intact(tmp_path) == tmp_path / PREVIOUS
