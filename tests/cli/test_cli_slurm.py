"""Sweeps on a real Slurm: killed arms, jobs of several ranks, training across two nodes; the same command completes each."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from cli_paths import Call, folder, result
from slurm_cluster import cluster, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]
LAUNCHER = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5", "hydra.launcher.cpus_per_task=1"]
KILL_BAD_EXIT = "hydra.launcher.setup=['export SLURM_KILL_BAD_EXIT=1']"


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    with cluster(tmp_path_factory.mktemp("slurm"), num_nodes=2) as variables:
        yield variables


@pytest.fixture(autouse=True)
def on_the_cluster(two_nodes: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in two_nodes.items():
        monkeypatch.setenv(name, value)


def test_a_killed_arm_stops_no_other_and_the_same_command_completes_the_sweep(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_command = ["-m", "seed=1,17,2", *LAUNCHER]
    killed = call(*sweep_command)
    assert killed.returncode == 1, killed.stderr
    sweep = folder(killed)
    assert "error: 1_seed=17: killed from outside" in killed.stderr
    assert (sweep / "1_seed=17" / "error.txt").read_text().startswith("killed from outside")
    assert "1 of 3 runs failed" in killed.stderr
    assert (sweep / "comparison.txt").read_text().split() == ["0_seed=1", "2_seed=2"]
    before = finished(sweep)
    assert list(before) == ["0_seed=1", "2_seed=2"]
    monkeypatch.setenv("LUCKY", "1")
    done = call(*sweep_command)
    assert done.returncode == 0, done.stderr
    assert folder(done) == sweep
    after = finished(sweep)
    assert list(after) == ["0_seed=1", "1_seed=17", "2_seed=2"]
    assert {name: after[name] for name in before} == before
    assert "0_seed=1: finished earlier, kept" in done.stdout
    assert len(submitted(sweep)) == 3 + 1  # none for an arm that is finished
    assert after["1_seed=17"]["resume"] == "auto"
    assert (sweep / "comparison.txt").read_text().split() == list(after)


def test_all_ranks_of_a_job_start_go_on_and_are_kept_together(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_command = ["-m", "task=ranks", "seed=1,14", *LAUNCHER, "hydra.launcher.tasks_per_node=2", KILL_BAD_EXIT]
    failed = call(*sweep_command)
    assert failed.returncode == 1
    sweep = folder(failed)
    assert (sweep / "1_seed=14" / "error.txt").read_text() == "RuntimeError: no space left on the device\n"
    assert "rank_work" in (sweep / "1_seed=14" / "error.log").read_text()
    monkeypatch.setenv("LUCKY", "1")
    done = call(*sweep_command)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert (sweep / "0_seed=1" / f"rank{rank}.txt").read_text() == "resume=None\n"  # kept: not asked again
        assert (sweep / "1_seed=14" / f"rank{rank}.txt").read_text() == "resume=None\nresume=auto\n"
    assert finished(sweep)["1_seed=14"]["resume"] == "auto"


def test_training_across_two_nodes_is_killed_and_goes_on(workplace: Path) -> None:
    killed = train("max_steps=12")
    arm = workplace / "here" / "arm"
    wait_for(lambda: (arm / "checkpoints" / "last.ckpt").is_file())
    os.kill(rank_process(1), signal.SIGKILL)
    _, errors = killed.communicate(timeout=200)
    assert killed.returncode == 1, errors
    assert (arm / "error.txt").is_file()
    assert not (arm / "result.json").exists()
    assert (arm.parent / "report.html").is_file()
    with (arm.parent / "comparison.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["failed"]
    done = train("max_steps=12")
    _, errors = done.communicate(timeout=200)
    assert done.returncode == 0, errors
    assert (result(arm)["steps"], result(arm)["global_batch_size"]) == (12, 2)
    assert yaml.safe_load((arm / "config.yaml").read_text())["resume"] == "auto"
    with (arm.parent / "comparison.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "reference"]
    with (arm / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 13))
    said = "".join(path.read_text() for path in arm.parent.glob(".submitit/*/*_0_log.out"))
    assert said.count("goes on from its last checkpoint") == 1


@pytest.mark.parametrize("preempt", [["scontrol", "requeue"], ["scancel", "--signal=USR2"]], ids=["requeued", "warned"])
def test_a_preempted_job_goes_on_and_the_command_that_waits_for_it_ends_well(workplace: Path, preempt: list[str]) -> None:
    """By Slurm, which stops a job and queues it again, and by its warning, at which submitit does that itself."""
    command = train("max_steps=60", num_nodes=1, minutes=60)  # of a job of 5 minutes submitit believes that its time is up
    arm = workplace / "here" / "arm"
    wait_for(lambda: (arm / "checkpoints" / "last.ckpt").is_file())
    (job,) = subprocess.run(["squeue", "-h", "-o", "%i"], text=True, capture_output=True, check=True).stdout.split()
    subprocess.run([*preempt, job], check=True)
    wait_for(lambda: "JobState=PENDING" in state_of(job))
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=True)  # not after Slurm's two minutes
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 0, errors
    assert "Restarts=1" in state_of(job)
    assert result(arm)["steps"] == 60
    assert not (arm / "error.txt").exists()
    with (arm / "metrics.csv").open() as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 61))
    assert yaml.safe_load((arm / "config.yaml").read_text())["resume"] == "auto"
    with (arm.parent / "comparison.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["done", "reference"]


def state_of(job: str) -> str:
    """Return what Slurm's controller says of a job."""
    return subprocess.run(["scontrol", "show", "job", job], text=True, capture_output=True, check=True).stdout


def train(steps: str, *, num_nodes: int = 2, minutes: int = 5) -> subprocess.Popen[str]:
    """Start the real training of a tiny arm: nodes with one process each, a checkpoint after every second step."""
    command = [
        sys.executable,
        "-m",
        "osediff_exp",
        "-m",
        "seed=1",
        "hydra/launcher=slurm",
        "hydra.sweep.dir=here",
        "hydra.sweep.subdir=arm",
    ]
    command += [f"hydra.launcher.{text}" for text in ("mem_per_cpu=null", "cpus_per_task=1", f"timeout_min={minutes}")]
    trainer = (f"num_nodes={num_nodes}", "batch_size=1", "checkpoint_every=2", "validate_every=1000", steps)
    command += [f"trainer.{text}" for text in trainer]
    command += ["trainer=debug", "loss/terms=[mse]", "data.val_first=2", "logger.wandb.mode=disabled"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def rank_process(rank: int) -> int:
    """Return the process of a rank of the job that was submitted from this folder."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = ((path / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        ours = b"submitit.core._submit" in command and str(Path.cwd()).encode() in command
        if ours and f"SLURM_PROCID={rank}".encode() in variables.split(b"\0"):
            return int(path.name)
    raise LookupError(f"no process of rank {rank}")


def wait_for(ready: object) -> None:
    assert callable(ready)
    for _ in range(1000):
        if ready():
            return
        time.sleep(0.1)
    raise TimeoutError


def submitted(sweep: Path) -> list[str]:
    """Return the jobs that the sweep's calls have submitted so far."""
    return sorted(path.name for path in sweep.glob(".submitit/*/*_submitted.pkl"))


def finished(sweep: Path) -> dict[str, dict[str, object]]:
    return {path.parent.name: result(path.parent) for path in sorted(sweep.glob("*/result.json"))}
