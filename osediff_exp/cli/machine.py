"""Has this machine what the run needs? Looked up in a moment, without importing torch: a GPU, Slurm's commands."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from osediff_exp.cli.slurm import runs_on_slurm
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_GROUP = {"train": "trainer", "pretrain": "pretrain"}  # task -> where its accelerator stands
_HERE = ("BasicLauncher", "JoblibLauncher", "LocalLauncher")
_OTHER_MAKERS = ("/dev/kfd", "/dev/dxg")  # AMD's, and Windows' below WSL: counting them is left to torch


def check_machine(shared: DictConfig, arm: DictConfig) -> None:
    """Raise UserError where an arm needs what this machine has not.

    ``shared`` is the composition without the swept values, which names the launcher. One that runs the arms on other machines is asked
    for its commands only.
    """
    if runs_on_slurm(shared) and shutil.which("sbatch") is None:
        raise UserError("hydra/launcher=slurm needs Slurm's sbatch, which is not here: go to a login node, or use hydra/launcher=parallel")
    group = _GROUP.get(str(arm.task.name))
    if group is not None and str(OmegaConf.select(shared, "hydra.launcher._target_")).endswith(_HERE):
        _check_gpus(arm, group)


def _check_gpus(config: DictConfig, group: str) -> None:
    try:
        kind, devices = (OmegaConf.select(config, f"{group}.{name}") for name in ("accelerator", "devices"))
    except OmegaConfBaseException:  # the checks of the keys say it better
        return
    if kind not in ("gpu", "cuda") or (count := num_gpus()) is None:
        return
    if count == 0:
        raise UserError(
            f"{group}.accelerator={kind}, but this machine shows no GPU: use {group}.accelerator=cpu, or a machine that has one"
        )
    if isinstance(devices, int) and devices > count:
        raise UserError(f"{group}.devices={devices}, but this machine shows {count} GPU{'s' * (count > 1)}: set {group}.devices={count}")


def num_gpus() -> int | None:
    """Return how many NVIDIA GPUs a process here would see; None where files do not tell (no Linux, another maker's)."""
    if not sys.platform.startswith("linux") or any(Path(path).exists() for path in _OTHER_MAKERS):
        return None
    present = sum(path.name.removeprefix("nvidia").isdigit() for path in Path("/dev").glob("nvidia[0-9]*"))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or present == 0:
        return present
    names = [name.strip() for name in visible.split(",")]
    return next((number for number, name in enumerate(names) if name in ("", "-1", "NoDevFiles")), len(names))
