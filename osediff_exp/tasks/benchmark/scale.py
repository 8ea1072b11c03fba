"""What a training step takes against batch, resolution, recomputed parts and processes, and what one more arm of a sweep takes."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from osediff_exp.errors import UserError
from osediff_exp.tasks.benchmark.training import StepCost, step_cost
from osediff_exp.tasks.train import Figures

log = logging.getLogger(__name__)

RECOMPUTED: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], []),
    "encoder": (["encoder"], []),
    "unet": (["unet"], []),
    "decoder": (["decoder"], []),
    "score": ([], ["vsd"]),
    "st_lpips": ([], ["st_lpips"]),
    "everything": (["encoder", "unet", "decoder"], ["vsd", "st_lpips"]),
}
"""Parts of the generator, and terms of the loss: VSD for its score network."""

RANKS_BATCH = 4
_STEPS = (2, 6)
_ARMS = 3


def scale(config: DictConfig, run_dir: Path) -> Figures:
    """Measure what ``benchmark.scale`` lists: seconds of a step (processor seconds on a CPU) and GiB, each case in a process of its own."""
    settings = config.benchmark.scale
    figures: Figures = {}
    for batch, size in [*((batch, settings.size) for batch in settings.batch_sizes), *((1, size) for size in settings.sizes)]:
        if (name := f"scale_b{batch}_{size}px") + "_gib" not in figures:
            figures |= _named(name, step_cost(config, run_dir, "ours", random=(batch, size)))
    for batch, size in settings.recomputed:
        figures |= _recomputed(config, run_dir, batch, size)
    with tempfile.TemporaryDirectory(dir=run_dir) as folder:
        for ranks in settings.ranks:
            figures |= _ranks(Path(folder), ranks)
        if settings.arms:
            figures["scale_one_more_arm_seconds"] = _one_more_arm(Path(folder))
    return figures


def _named(name: str, cost: StepCost) -> Figures:
    log.info("%s: %.2f s a step, %.2f GiB", name, cost.seconds, cost.gib)  # the whole takes a quarter of an hour and more
    return {f"{name}_step_seconds": cost.seconds, f"{name}_gib": cost.gib}


def _recomputed(config: DictConfig, run_dir: Path, batch: int, size: int) -> Figures:
    """Return a step's cost with each of :data:`RECOMPUTED`, the plain step's, and the memory of the first and last case against it."""
    name = f"scale_b{batch}_{size}px"
    figures = _named(f"{name}_plain", plain := step_cost(config, run_dir, "plain", random=(batch, size)))
    for what, (parts, terms) in RECOMPUTED.items():
        keys: dict[str, Any] = {"generator": {"gradient_checkpointing": parts}}
        keys["loss"] = {"terms": {name: {"gradient_checkpointing": True} for name in terms if name in config.loss.terms}}
        case = OmegaConf.merge(config, keys)
        assert isinstance(case, DictConfig)
        cost = step_cost(case, run_dir, "ours", random=(batch, size))
        figures |= _named(f"{name}_recomputed_{what}", cost) | {f"{name}_recomputed_{what}_memory_ratio": cost.gib / plain.gib}
    return figures


# ---- whole trainings, as the command line starts them


def _ranks(folder: Path, ranks: int) -> Figures:
    """Return the seconds of a step, all processes together, and the largest process's memory, libraries included."""
    strategy = "ddp" if ranks > 1 else "auto"
    options = [f"trainer.devices={ranks}", f"trainer.strategy={strategy}", f"trainer.batch_size={RANKS_BATCH // ranks}"]
    few, many = (_processes([*options, *_short(steps), f"hydra.run.dir={folder}/{ranks}_{steps}"], ranks) for steps in _STEPS)
    step = (many.seconds - few.seconds) / (_STEPS[1] - _STEPS[0])
    return _named(f"scale_{ranks}_processes", StepCost(many.gib, step))


def _one_more_arm(folder: Path) -> float:
    """Return the seconds of one more arm of a sweep, its steps, two validation pictures, checkpoints and rows of the report included."""
    few, many = (
        _processes(["-m", f"seed={','.join(map(str, range(arms)))}", *_short(_STEPS[0]), f"hydra.sweep.dir={folder}/{arms}_arms"], 1)
        for arms in (1, _ARMS)
    )
    return (many.seconds - few.seconds) / (_ARMS - 1)


def _short(steps: int) -> list[str]:
    return [f"trainer.max_steps={steps}", f"trainer.validate_every={steps}", f"trainer.checkpoint_every={steps}", "data.val_first=2"]


def _processes(arguments: Sequence[str], ranks: int) -> StepCost:
    """Return the processor seconds of a training's processes together, and the GiB of the largest."""
    command = [sys.executable, "-m", "osediff_exp", "trainer.accelerator=cpu", *arguments]
    port = _free_port()
    started = [
        subprocess.Popen(command, env=_environment(rank, ranks, port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for rank in range(ranks)
    ]
    usages = []
    for process in started:
        _, status, usage = os.wait4(process.pid, 0)  # Popen's own wait does not tell what a process has taken
        process.returncode = os.waitstatus_to_exitcode(status)
        usages.append(usage)
    if any(process.returncode for process in started):
        raise UserError(f"a training of the benchmark failed: {' '.join(command[1:])} says why")
    return StepCost(max(usage.ru_maxrss for usage in usages) / 2**20, sum(usage.ru_utime + usage.ru_stime for usage in usages))


def _environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    if ranks == 1:
        return environment
    return environment | {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
