"""Long runs: memory and open files stay flat over 2,000 steps, and over 30 arms in one process."""

from __future__ import annotations

import csv
import gc
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from tiny_parts import make_data, make_module, make_terms, make_trainer

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.ema import GeneratorEMA
from osediff_exp.callbacks.metrics_csv import MetricsCsv
from osediff_exp.callbacks.validation_records import ValidationRecords
from osediff_exp.callbacks.wandb_logger import wandb_logger
from osediff_exp.models.backbone import Backbone

STEPS, EVERY, WARM_UP = 2000, 50, 500


def resident_mib() -> float:
    """Return what of this process is in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def open_files() -> int:
    """Return how many file descriptors this process holds."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


class Meter(pl.Callback):
    """Notes memory and open files every ``EVERY`` steps."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, int]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *args: Any) -> None:
        if pl_module.steps_taken % EVERY == 0:
            gc.collect()
            self.rows.append((pl_module.steps_taken, resident_mib(), open_files()))


def slope(rows: list[tuple[int, float, int]]) -> tuple[float, float]:
    """Return the growth in MiB per 1,000 steps and its standard error, of the least squares line."""
    steps, memory = (np.array([row[column] for row in rows], dtype=float) for column in (0, 1))
    coefficients, covariance = np.polyfit(steps, memory, 1, cov=True)
    return float(coefficients[0]) * 1000, float(covariance[0, 0] ** 0.5) * 1000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts what Linux tells in /proc")
def test_two_thousand_steps_take_no_more_memory_and_no_more_files(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    offline = wandb_logger(
        mode="offline", project="soak", entity=None, tags=[], init_timeout=20.0, finish_timeout=10.0, folder=str(tmp_path), name="soak"
    )
    meter, table = Meter(), MetricsCsv(path=str(tmp_path / "metrics.csv"))
    module = make_module(backbone, terms=make_terms(backbone), max_steps=STEPS, log_every=5)
    trainer = make_trainer(
        tmp_path,
        validate_every=200,
        logger=[table, *([offline] if offline is not None else [])],
        callbacks=[LastCheckpoint(every=200), GeneratorEMA(decay=0.9), ValidationRecords(num_pictures=2, wandb_pictures=1), meter],
    )
    trainer.fit(module, datamodule=make_data(tmp_path / "photos", batch_size=1))
    table.finalize("success")
    if offline is not None:
        offline.finish({})
    with (tmp_path / "soak.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "resident_mib", "open_files"), *meter.rows])
    warm = [row for row in meter.rows if row[0] > WARM_UP]
    growth, error = slope(warm)
    print(f"memory {warm[0][1]:.1f} to {warm[-1][1]:.1f} MiB, {growth:.2f} +- {error:.2f} MiB per 1,000 steps; files {warm[-1][2]}")
    assert growth < max(3 * error, 5.0)
    assert warm[-1][2] <= warm[0][2] + 1


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts what Linux tells in /proc")
def test_thirty_arms_in_one_process_take_no_more_memory_and_no_more_files(backbone: Backbone, tmp_path: Path) -> None:
    """What an arm builds is gone before the next: module, trainer, loggers and data are made anew 30 times."""
    rows = []
    for arm in range(30):
        folder = tmp_path / str(arm)
        module = make_module(backbone, terms=make_terms(backbone), max_steps=3)
        callbacks = [LastCheckpoint(every=3), GeneratorEMA(decay=0.9), ValidationRecords(num_pictures=1, wandb_pictures=0)]
        trainer = make_trainer(folder, validate_every=3, logger=MetricsCsv(path=str(folder / "metrics.csv")), callbacks=callbacks)
        trainer.fit(module, datamodule=make_data(tmp_path / "photos", batch_size=1))
        del module, trainer, callbacks
        gc.collect()
        rows.append((arm, resident_mib(), open_files()))
    warm = rows[10:]
    growth, error = (figure / 1000 for figure in slope(warm))
    print(f"memory {warm[0][1]:.1f} to {warm[-1][1]:.1f} MiB, {growth:.2f} +- {error:.2f} MiB per arm; files {warm[-1][2]}")
    assert growth < max(3 * error, 1.0)
    assert warm[-1][2] <= warm[0][2] + 1
