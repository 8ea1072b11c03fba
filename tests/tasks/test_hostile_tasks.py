"""A folder of hostile files through every task that reads pictures, as a user would: each is used or named, nothing is a bug."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_files import BAD, EITHER, GOOD, HOSTILE, write_hostile

ROOT = Path(__file__).parents[2]
SMALL = ("trainer=debug", "trainer.max_steps=1", "trainer.validate_every=1", "loss/terms=[mse]", "data.crop_size=16", "data.val_size=16")
TASKS = {
    "restore": ("task=restore", "checkpoint=trained", "input=photos", "upscale=1"),
    "score": ("task=score", "pred=photos", "gt=photos", "metrics=psnr_ssim"),
    "evaluate": ("task=evaluate", "data=pairs", "data.lr_root=photos", "data.hr_root=photos", "metrics=psnr_ssim", "restorers=[bicubic]"),
    "train": (*SMALL, "data=folder", "data.root=photos", "data.verify=full", "data.bad_images=skip", "logger.wandb.mode=disabled"),
    "refused": (*SMALL, "data=folder", "data.root=photos", "data.verify=full", "logger.wandb.mode=disabled"),
    "tag": ("task=tag", "input=photos", "prompt=tagged", "prompt.cache=cache", "tag.device=cpu"),
    "pretrain": (
        *("task=pretrain", "stage=vae", "data=folder", "data.root=photos", "data.verify=full", "data.bad_images=skip", "data.crop_size=16"),
        *("data.val_size=16", "pretrain.max_steps=1", "pretrain.batch_size=2", "pretrain.precision=32-true", "pretrain.accelerator=cpu"),
    ),
}


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OSEDIFF_CACHE": str(folder / "own_cache")}
    words = [sys.executable, "-m", "osediff_exp", *arguments]
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_each_file_is_used_or_named(task: str, tmp_path: Path) -> None:
    write_hostile(tmp_path / "photos")
    if task == "restore":
        command("trainer=debug", *SMALL[1:4], "data.val_first=0", "logger.wandb.mode=disabled", "hydra.run.dir=trained", folder=tmp_path)
    done = command(*TASKS[task], "hydra.run.dir=out", folder=tmp_path)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said[-2000:]
    assert not (tmp_path / "out" / "error.log").exists(), said[-2000:]
    if task in ("train", "pretrain"):
        assert done.returncode == 0, said[-2000:]
    else:
        assert done.returncode in (1, 2), said[-2000:]
    named = said + "".join(path.read_text() for path in (tmp_path / "out").rglob("*") if path.suffix in (".txt", ".csv", ".md", ".json"))
    for name, (_, fate) in HOSTILE.items():
        stem = name.rpartition(".")[0].replace("\n", "\\n")
        if fate == BAD:
            assert stem in named, name
        elif fate == GOOD and task == "restore":
            assert any(path.name.startswith(name.rpartition(".")[0]) for path in (tmp_path / "out" / "restored").iterdir()), name
    result = tmp_path / "out" / "result.json"
    if result.is_file() and (peak := json.loads(result.read_text()).get("peak_memory_gib")):
        assert peak < 3


def test_fates_are_of_three_kinds() -> None:
    assert {fate for _, fate in HOSTILE.values()} == {GOOD, BAD, EITHER}
