"""What a training leaves in its run folder: metrics.csv, pictures, per_image.csv, checkpoints."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_parts import make_data, make_module, make_terms, make_trainer

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.metrics_csv import MetricsCsv
from osediff_exp.callbacks.progress import LiveProgress
from osediff_exp.callbacks.validation_records import ValidationRecords, to_picture
from osediff_exp.callbacks.wandb_logger import wandb_logger
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


# ---- metrics.csv


def test_one_row_per_step_with_empty_cells(tmp_path: Path) -> None:
    logger = MetricsCsv(path=str(tmp_path / "metrics.csv"), flush_every_n_logs=1)
    logger.log_metrics({"train/loss": 0.5, "epoch": 0}, step=1)
    logger.log_metrics({"train/loss": 0.25}, step=2)
    logger.log_metrics({"val/psnr": 20.0}, step=2)
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,train/loss,val/psnr", "1,0.5,", "2,0.25,20"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_rows_are_written_every_n_logs_and_at_the_end(tmp_path: Path) -> None:
    logger = MetricsCsv(path=str(tmp_path / "metrics.csv"), flush_every_n_logs=2)
    counts = []
    for step in (1, 2, 3):
        logger.log_metrics({"x": step}, step=step)
        counts.append(len(table(tmp_path / "metrics.csv")) if (tmp_path / "metrics.csv").exists() else 0)
    logger.finalize("success")
    assert [*counts, len(table(tmp_path / "metrics.csv"))] == [0, 2, 2, 3]


def test_a_resumed_file_keeps_old_rows_and_forgets_later_ones(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a,b\n1,1,\n2,,2\n3,3,3\n")
    logger = MetricsCsv(path=str(tmp_path / "metrics.csv"))
    logger.forget_after(2)
    logger.log_metrics({"a": 7}, step=3)
    logger.save()
    assert (tmp_path / "metrics.csv").read_text().splitlines() == ["step,a,b", "1,1,", "2,,2", "3,7,"]


# ---- pictures, per_image.csv, checkpoints


def test_pictures_are_rounded_to_8_bit() -> None:
    picture = to_picture(torch.tensor([-0.1, 0.5, 1.2]).view(3, 1, 1))
    assert np.asarray(picture).tolist() == [[[0, 128, 255]]]


def test_a_training_leaves_pictures_tables_and_one_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    module = make_module(backbone, terms=make_terms(backbone, "mse"), max_steps=3)
    callbacks: list[Any] = [LastCheckpoint(every=2), ValidationRecords(num_pictures=2, wandb_pictures=0), LiveProgress()]
    data = make_data(tmp_path / "photos", batch_size=1)
    make_trainer(tmp_path, callbacks=callbacks, validate_every=2).fit(module, datamodule=data)
    images = tmp_path / "images"
    for kind, size in (("lq", 8), ("bicubic", 32), ("hq", 32), ("output", 32)):
        pictures = sorted((images / kind).iterdir())
        assert [path.name for path in pictures] == ["0.png", "1.png", "2.png"]
        assert {read_size(path) for path in pictures} == {(size, size)}
    assert {path.name: len(list(path.iterdir())) for path in (images / "steps").iterdir()} == {"000002": 2, "000003": 2}
    assert (images / "steps" / "000003" / "1.png").read_bytes() == (images / "output" / "1.png").read_bytes()
    rows = table(tmp_path / "per_image.csv")
    assert [row["name"] for row in rows] == ["0", "1", "2"]
    assert list(rows[0]) == ["name", "psnr", "bicubic_psnr"]
    assert np.mean([float(row["psnr"]) for row in rows]) == pytest.approx(module.latest["val/psnr"], rel=1e-4)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=False)["steps_taken"] == 3


def test_a_validation_tells_how_far_it_is(backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = make_module(backbone, terms=make_terms(backbone, "mse"), max_steps=1)
    progress = LiveProgress(label="arm", seconds_between_lines=0.0)
    data = make_data(tmp_path / "photos", batch_size=1)
    make_trainer(tmp_path, callbacks=[progress], validate_every=1).fit(module, datamodule=data)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "validating" in line][-1] == "arm: validating 3/3"
    assert module.generator.on_step is None
    progress._tell_steps(20, 200)
    assert capsys.readouterr().out == "arm: validating 3/3, step 20/200\n"


def test_checkpoints_are_written_at_multiples_and_at_the_end(tmp_path: Path) -> None:
    steps = []

    def save(path: Path) -> None:
        path.write_bytes(b"")
        steps.append(module.steps_taken)

    trainer: Any = SimpleNamespace(default_root_dir=tmp_path, save_checkpoint=save, is_global_zero=True, callbacks=["other"], loggers=[])
    module: Any = SimpleNamespace(steps_taken=0, max_steps=7, _micro_batch=0, parameters=list)
    trainer.lightning_module = module
    callback = LastCheckpoint(every=3)
    trainer.callbacks.insert(0, callback)
    callback.setup(trainer, module, "fit")
    for micro_batch in range(1, 15):
        module._micro_batch, module.steps_taken = micro_batch % 2, micro_batch // 2
        callback.on_train_batch_end(trainer, module, None, None, 0)
    assert steps == [3, 6, 7]
    assert trainer.callbacks == ["other", callback]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt", "sha256.txt"}


# ---- W&B


def wandb_arguments(tmp_path: Path) -> dict[str, Any]:
    return {"project": "p", "entity": None, "tags": [], "init_timeout": 1.0, "folder": str(tmp_path)}


def test_a_disabled_wandb_is_no_logger(tmp_path: Path) -> None:
    assert wandb_logger(mode="disabled", **wandb_arguments(tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_wandb_mode_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean 'offline'"):
        wandb_logger(mode="ofline", **wandb_arguments(tmp_path))  # type: ignore[arg-type]
