"""Sweeps on Slurm: do the jobs fit the training, and which are still there when one has died?"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

_ONE_PER_RANK = {"tasks_per_node": "trainer.devices", "nodes": "trainer.num_nodes"}
_DISTRIBUTED = ("train",)
_PAUSE = 5.0
_MOST_SILENCES = 120


def runs_on_slurm(config: DictConfig) -> bool:
    """Tell whether the chosen launcher sends its arms to Slurm."""
    return str(OmegaConf.select(config, "hydra.launcher._target_")).endswith(".SlurmLauncher")


def check_job(shared: DictConfig, arm: DictConfig) -> None:
    """Raise UserError where a Slurm job would not start exactly the ranks that an arm's training waits for.

    ``shared`` is the composition without the swept values: the launcher's settings are taken from there, for all jobs alike.
    """
    if not runs_on_slurm(shared) or OmegaConf.select(arm, "trainer.devices") is None:
        return
    ranks = {setting: _whole_number(shared, f"hydra.launcher.{setting}") for setting in _ONE_PER_RANK}
    for setting, key in _ONE_PER_RANK.items():
        if ranks[setting] != (wanted := _whole_number(arm, key)):
            reason = f"Slurm starts one process per device; with hydra/launcher=slurm set {key} alone, one value for all arms of a sweep"
            raise UserError(f"hydra.launcher.{setting}={ranks[setting]}, but {key}={wanted}: {reason}")
    if arm.task.name not in _DISTRIBUTED and any(number > 1 for number in ranks.values()):
        raise UserError(f"task={arm.task.name} works in one process: add trainer.devices=1 trainer.num_nodes=1")


def _whole_number(config: DictConfig, key: str) -> int:
    try:
        value: Any = OmegaConf.select(config, key)
    except OmegaConfBaseException:  # an interpolation to something that is no number
        value = OmegaConf.select(config, _ONE_PER_RANK[key.rpartition(".")[2]])
    if type(value) is not int or value < 1:
        raise UserError(f"{key}={value}: Slurm must know how many: write a whole number above 0")
    return value


def wait_for_jobs(sweep_dir: Path) -> None:
    """Wait until none of the jobs is left that submitit has queued for a sweep; it stops watching them all when one dies."""
    silences, told, ids = 0, False, job_ids(sweep_dir)
    while ids and silences < _MOST_SILENCES:
        left = _jobs_left(ids)
        if left == 0:
            return
        if left and not told:
            print(f"a job has died; waiting for {left} others of this sweep", file=sys.stderr, flush=True)
            told = True
        silences = silences + 1 if left is None else 0
        time.sleep(_PAUSE)


def jobs_left(sweep_dir: Path) -> int:
    """Return how many jobs of a sweep are queued or running, 0 also where Slurm does not answer."""
    ids = job_ids(sweep_dir)
    return (_jobs_left(ids) or 0) if ids else 0


def job_ids(sweep_dir: Path) -> list[str]:
    """Return the numbers of the jobs (of the arrays) that a sweep's calls have submitted."""
    # A folder per job, and a file of hexadecimal digits for each that was to be submitted.
    names = {path.name.partition("_")[0] for path in sweep_dir.glob(".submitit/[0-9]*") if path.is_dir()}
    return sorted(name for name in names if name.isdigit())


def _jobs_left(ids: list[str]) -> int | None:
    """Return how many of the jobs are queued or running, None where Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--format=%i", f"--jobs={','.join(ids)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    if done.returncode != 0:
        return 0 if "Invalid job id" in done.stderr else None
    return len(done.stdout.split())
