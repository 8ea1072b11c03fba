"""Two processes on the same global batch are one process: weights of generator and score network, logged figures, validation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed_worker import every_critic, train
from tiny_parts import largest_difference, make_module, make_terms, trainable, write_photos

from osediff_exp.models.backbone import Backbone, load_backbone

EMBEDDED = Path(__file__).parents[1] / "osediff_exp" / "models" / "weights"
WORKER = Path(__file__).with_name("distributed_worker.py")


def one_process(backbone_folder: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    folder.mkdir()
    train(backbone_folder, folder, devices=1, **settings)
    return torch.load(folder / "trained.pt")


def two_processes(backbone_folder: Path, folder: Path, **settings: Any) -> dict[str, Any]:
    done = run_two(backbone_folder, folder, **settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "trained.pt")


def run_two(backbone_folder: Path, folder: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    settings |= {"devices": 2, "photos": str(settings["photos"])}
    command = [sys.executable, str(WORKER), str(backbone_folder), str(folder), json.dumps(settings)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[1])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_val", "accumulate", "critic_updates", "all_critics"),
    [
        (3, 1, 2, False),
        (3, 1, 2, True),
        (2, 2, 1, False),
        (2, 2, 2, True),
    ],
)
def test_two_processes_are_one(
    backbone: Backbone, backbone_folder: Path, tmp_path: Path, num_val: int, accumulate: int, critic_updates: int, all_critics: bool
) -> None:
    write_photos(tmp_path / "photos" / "train", 3)
    write_photos(tmp_path / "photos" / "val", num_val)
    settings = {"photos": tmp_path / "photos", "num_val": num_val, "accumulate": accumulate, "critic_updates": critic_updates}
    settings |= {"all_critics": all_critics}
    one = one_process(backbone_folder, tmp_path / "one", batch_size=4, **settings)
    two = two_processes(backbone_folder, tmp_path / "two", batch_size=2, **settings)
    assert largest_difference(one["weights"], two["weights"]) < 1e-5
    assert largest_difference(one["average"], two["average"]) < 1e-5
    critics = every_critic(backbone) if all_critics else make_terms(backbone, "vsd")
    start = trainable(make_module(backbone, terms=critics))
    for prefix in ("generator.", *(f"terms.{name}." for name in critics)):
        moved = [float((weight - start[name]).abs().max()) for name, weight in one["weights"].items() if name.startswith(prefix)]
        assert max(moved) > 1e-3
    assert one["latest"].keys() == two["latest"].keys() >= {"val/psnr", "val/fid", "val/bicubic_fid"}
    for key, value in one["latest"].items():
        if "second" not in key:
            assert two["latest"][key] == pytest.approx(value, rel=2e-3), key
    assert [row["name"] for row in two["per_image"]] == [row["name"] for row in one["per_image"]]
    assert len(two["per_image"]) == num_val
    for folder in ("one", "two"):
        assert len(list((tmp_path / folder / "images" / "output").iterdir())) == num_val
        assert {path.name for path in (tmp_path / folder / "checkpoints").iterdir()} == {"last.ckpt", "sha256.txt"}


@pytest.mark.slow
def test_a_training_goes_on_with_another_number_of_processes(backbone_folder: Path, tmp_path: Path) -> None:
    """3 steps on two processes and 3 on one are 6 on one: samples are counted, not batches."""
    write_photos(tmp_path / "photos" / "train", 3)
    write_photos(tmp_path / "photos" / "val", 2)
    settings: dict[str, Any] = {"photos": tmp_path / "photos", "num_val": 2, "accumulate": 1}
    two_processes(backbone_folder, tmp_path / "first", batch_size=2, **settings)
    resume = str(tmp_path / "first" / "checkpoints" / "last.ckpt")
    on = one_process(backbone_folder, tmp_path / "then", batch_size=4, max_steps=6, resume=resume, **settings)
    whole = one_process(backbone_folder, tmp_path / "whole", batch_size=4, max_steps=6, **settings)
    assert largest_difference(on["weights"], whole["weights"]) < 1e-5
    assert largest_difference(on["average"], whole["average"]) < 1e-5


@pytest.mark.slow
def test_pictures_too_few_to_share_are_refused_and_nobody_waits(backbone_folder: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos" / "train", 3)
    write_photos(tmp_path / "photos" / "val", 1)
    done = run_two(backbone_folder, tmp_path / "two", photos=tmp_path / "photos", num_val=1, batch_size=2, accumulate=1)
    assert done.returncode != 0
    assert "1 validation picture cannot be shared by 2 processes" in done.stderr


@pytest.mark.slow
def test_a_bad_loss_on_one_rank_skips_the_step_on_all(backbone_folder: Path, tmp_path: Path) -> None:
    write_photos(tmp_path / "photos" / "train", 3)
    settings: dict[str, Any] = {"photos": tmp_path / "photos", "num_val": 0, "accumulate": 1, "max_steps": 3}
    two = two_processes(backbone_folder, tmp_path / "two", batch_size=2, bad_rank=1, **settings)
    one = one_process(backbone_folder, tmp_path / "one", batch_size=4, bad_rank=0, **settings)
    assert two["skipped"] == one["skipped"] == 1
    assert largest_difference(one["weights"], two["weights"]) < 1e-5


TWO_RANKS = (
    *("trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp", "trainer.max_steps=1000", "trainer.batch_size=1"),
    *("trainer.log_every=1", "trainer.validate_every=1000", "trainer.checkpoint_every=2", "loss/terms=[mse]", "data.crop_size=32"),
    *("data.val_size=64", "data.val_first=2", "metrics=psnr_ssim", "logger.wandb.mode=disabled", "hydra.run.dir=out"),
)


def rank_of(process: Path) -> str | None:
    """Return the rank that Lightning gave a process that it started; None for any other process."""
    try:
        entries = (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is somebody else's
        return None
    return next((entry.partition(b"=")[2].decode() for entry in entries if entry.startswith(b"LOCAL_RANK=")), None)


def rank_one(parent: int) -> int:
    """Return the process of rank 1, which rank 0 has started."""
    started = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(number) for number in started if rank_of(Path("/proc", number)) == "1")


def ended(process: int) -> bool:
    """Tell whether a process is gone, or only waits to be noticed by its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the ranks in Linux's /proc")
@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_ends_the_other_within_a_minute(victim: int, tmp_path: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[1])}
    with (tmp_path / "said.txt").open("w") as said:
        first = subprocess.Popen(
            [sys.executable, "-m", "osediff_exp", *TWO_RANKS],
            cwd=tmp_path, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            until = time.monotonic() + 400
            while not (tmp_path / "out" / "checkpoints" / "last.ckpt").exists():
                assert first.poll() is None
                assert time.monotonic() < until
                time.sleep(0.2)
            ranks = [first.pid, rank_one(first.pid)]
            os.kill(ranks[victim], signal.SIGKILL)
            killed = time.monotonic()
            while not all(ended(rank) for rank in ranks):
                assert time.monotonic() - killed < 60
                time.sleep(0.1)
        finally:
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
    assert first.returncode == (-signal.SIGKILL if victim == 0 else 1)
    assert "another process of this run has ended" in (tmp_path / "out" / "error.txt").read_text()
    assert "Traceback" not in (tmp_path / "said.txt").read_text()
    assert not (tmp_path / "out" / "error.log").exists()


PRIOR_ON_TWO = (
    *("task=pretrain", "stage=prior", "pretrain.devices=2", "pretrain.accelerator=cpu", "pretrain.max_steps=3", "pretrain.batch_size=1"),
    *("pretrain.validate_every=2", "pretrain.precision=32-true", "pretrain.latents.count=6", "pretrain.latents.crop_size=64"),
    *("pretrain.unet.block_out_channels=[16,16,16]", "pretrain.unet.attention_head_dim=1", "degradation=bicubic", "data.crop_size=32"),
    *("data.val_size=32", "data.val_first=2", "data.num_workers=0", "hydra.run.dir=out", f"pretrain.vae={EMBEDDED / 'tiny' / 'vae'}"),
)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [(), ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")], ids=["own", "torchrun"]
)
def test_a_prior_s_two_processes_share_one_tokenizer_and_write_everything_once(launcher: tuple[str, ...], tmp_path: Path) -> None:
    """torchrun starts both at once; a BPE trained twice gives equal words other numbers, so the second must read the first's."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[1])}
    command = [sys.executable, *launcher, "-m", "osediff_exp", *PRIOR_ON_TWO]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        *("backbone", "checkpoints", "config.yaml", "images", "latents", "metrics.csv", "result.json", "tokenizer")
    }
    assert json.loads((out / "result.json").read_text())["steps"] == 3
    assert len(json.loads((out / "latents" / "latents.json").read_text())["entries"]) == 6
    trained = load_backbone(sources=[str(out / "backbone")])
    assert trained.tokenizer.get_vocab() == json.loads((out / "tokenizer" / "vocab.json").read_text())
