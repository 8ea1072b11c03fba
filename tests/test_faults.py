"""Processes killed, terminated and interrupted at random moments: the same command finishes, and its results are the undisturbed ones."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_parts import write_photos

ROOT = Path(__file__).parents[1]
QUIET = ("logger.wandb.mode=disabled",)
TRAIN = ("trainer.max_steps=6", "trainer.batch_size=1", "trainer.log_every=1", "trainer.validate_every=3", "trainer.checkpoint_every=2")
SAMPLE = ("loss/terms=[mse,vsd]", "data.crop_size=32", "data.val_size=64", "data.val_first=2", "metrics=psnr_ssim", *QUIET)
PRETRAIN = (
    *("task=pretrain", "stage=vae", "data=sample", "data.crop_size=32", "data.val_size=64", "data.val_first=2", "pretrain.max_steps=8"),
    *("pretrain.batch_size=1", "pretrain.precision=32-true", "pretrain.accelerator=cpu", "pretrain.validate_every=3"),
)

Facts = dict[str, Any]


def tensors(path: Path) -> Facts:
    content = torch.load(path, map_location="cpu", weights_only=False)
    return {name: value for name, value in content["state_dict"].items() if isinstance(value, torch.Tensor)}


def table(path: Path, *leave_out: str) -> Facts:
    with path.open(newline="") as file:
        rows = [{key: value for key, value in row.items() if key not in leave_out} for row in csv.DictReader(file)]
    return {path.name: rows}


def pixels(folder: Path) -> Facts:
    return {str(path.relative_to(folder)): np.asarray(Image.open(path)) for path in sorted(folder.rglob("*.png"))}


def training(out: Path) -> Facts:
    return (
        tensors(out / "checkpoints" / "last.ckpt")
        | table(out / "metrics.csv", "train/images_per_second", "time/data_wait_seconds")
        | pixels(out / "images")
    )


def sweep(out: Path) -> Facts:
    arms = {arm.name: training(arm) for arm in sorted(out.iterdir()) if (arm / "result.json").is_file()}
    return {"arms": list(arms)} | {f"{arm}/{name}": fact for arm, facts in arms.items() for name, fact in facts.items()}


def pretraining(out: Path) -> Facts:
    return tensors(out / "checkpoints" / "last.ckpt")


COMMANDS: dict[str, tuple[tuple[str, ...], Callable[[Path], Facts]]] = {
    "train": ((*TRAIN, *SAMPLE, "resume=auto"), training),
    "pretrain": ((*PRETRAIN, "resume=auto"), pretraining),
    "sweep": (("-m", "lambda2=0,1", *TRAIN, *SAMPLE), sweep),
    "restore": (("task=restore", "checkpoint=../trained", "input=../photos/train", "upscale=2"), lambda out: pixels(out / "restored")),
    "score": (("task=score", "pred=../photos/train", "gt=../photos/train", "metrics=basic"), lambda out: table(out / "per_image.csv")),
    "evaluate": (
        ("task=evaluate", "data=pairs", "data.lr_root=../photos/train", "data.hr_root=../photos/train", "metrics=psnr_ssim"),
        lambda out: table(next(out.rglob("per_image.csv"))),
    ),
    "tag": (
        ("task=tag", "input=../photos/train", "prompt=tagged", "prompt.cache=cache", "tag.device=cpu"),
        lambda out: table(out / "tags.csv"),
    ),
    "report": (("task=report", "runs=../trained"), lambda out: {"page": (out.parent.parent / "trained" / "comparison.csv").read_text()}),
}


def popen(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OSEDIFF_CACHE": str(folder / "own_cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "osediff_exp", *arguments, f"hydra.{'sweep' if '-m' in arguments else 'run'}.dir=out"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def finish(folder: Path, *arguments: str) -> float:
    """Run the command to its end; return the seconds that it took."""
    started = time.monotonic()
    running = popen(folder, *arguments)
    said = running.communicate(timeout=1200)[0]
    assert running.returncode == 0, said[-2000:]
    return time.monotonic() - started


def equal(one: Facts, other: Facts) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, other[name]), name
        elif isinstance(value, np.ndarray):
            assert np.array_equal(value, other[name]), name
        else:
            assert value == other[name], name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos for the tasks that read some."""
    folder = tmp_path_factory.mktemp("faults")
    write_photos(folder / "photos" / "train", 4)
    return folder


def trained(folder: Path) -> None:
    """Leave a trained run in ``folder/trained``, once."""
    if not (folder / "trained").exists():
        finish(folder / "making", "trainer=debug", "trainer.max_steps=1", "trainer.validate_every=1", *SAMPLE)
        (folder / "making" / "out").rename(folder / "trained")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=["kill", "term", "int"])
@pytest.mark.parametrize("task", COMMANDS)
def test_the_same_command_finishes_what_a_signal_stopped(task: str, number: signal.Signals, place: Path) -> None:
    arguments, facts = COMMANDS[task]
    if any("trained" in text for text in arguments):
        trained(place)
    undisturbed, disturbed = place / f"{task}_whole", place / f"{task}_{number.name}"
    seconds = finish(undisturbed, *arguments) if not undisturbed.exists() else float((undisturbed / "seconds.txt").read_text())
    (undisturbed / "seconds.txt").write_text(str(seconds))
    running = popen(disturbed, *arguments)
    time.sleep(random.Random(f"{task}{number}").uniform(0.2, 0.95) * seconds)
    if running.poll() is None:
        os.killpg(running.pid, number)
    said = running.communicate(timeout=300)[0]
    assert "Traceback" not in said, said[-2000:]
    assert not list(disturbed.rglob("error.log")), said[-2000:]
    finish(disturbed, *arguments)
    equal(facts(undisturbed / "out"), facts(disturbed / "out"))
    assert not [path for path in disturbed.rglob("*.part") if path.is_file()]


def vae(out: Path) -> Facts:
    return dict(load_file(out / "vae" / "diffusion_pytorch_model.safetensors"))


@pytest.mark.slow
def test_a_pretraining_killed_behind_its_last_checkpoint_ends_with_the_same_weights(place: Path) -> None:
    """Nothing is left to train then, and the weights are the averaged ones all the same; so they are from the checkpoint before."""
    command, folder = (*PRETRAIN, "pretrain.max_steps=6", "resume=auto"), place / "pretrain_end"
    out = folder / "out"
    finish(folder, *command)
    whole = vae(out)
    for damaged in (False, True):
        shutil.rmtree(out / "vae")
        if damaged:
            (out / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
        finish(folder, *command)
        equal(whole, vae(out))
        assert json.loads((out / "result.json").read_text())["steps"] == 6
