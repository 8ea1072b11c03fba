"""The commands that made a sweep and its runs, rebuilt from what Hydra wrote down."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.runs import Run, read_yaml

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = ("python", "-m", "osediff_exp")
_SWEEP = "hydra.mode=MULTIRUN"
# What the command line itself adds, and where this machine happened to put the folders: no part of the experiment.
_OWN = (_SWEEP, "hydra.job.config.override_dirname", "hydra.run.dir=")
_PLACE = "hydra.sweep.dir="


def sweep_command(sweep_dir: Path, *, go_on: bool = False) -> str:
    """Return the command of the whole sweep, or "" where ``multirun.yaml`` is missing or damaged.

    ``go_on`` keeps the folder that was named on the command line: given again, the command goes on there.
    """
    config = read_yaml(sweep_dir / "multirun.yaml")
    if not isinstance(config, dict):
        return ""
    hydra, task = _overrides(config, "hydra"), _overrides(config, "task")
    # Hydra turns the flag -m into an override; a sweep that an experiment file started has no such flag.
    flag = ["-m"] if _SWEEP in hydra else []
    places = [text for text in hydra if text.startswith(_PLACE)][:1] if go_on else []  # the command line repeats it when it goes on
    return shlex.join([*PROGRAM, *flag, *task, *(text for text in hydra if not text.startswith((*_OWN, _PLACE))), *places])


def run_command(run: Run) -> str:
    """Return the command that repeats one arm alone, or "" where its overrides are missing."""
    if not run.overrides:
        return ""
    # An experiment file may carry its own sweep; one arm of it must not start the whole sweep again.
    mode = ["hydra.mode=RUN"] if any(text.lstrip("+").startswith("experiment=") for text in run.overrides) else []
    return shlex.join([*PROGRAM, *run.overrides, *mode])


def _overrides(config: dict[str, Any], kind: str) -> list[str]:
    node: Any = config.get("hydra", config)
    for key in ("overrides", kind):
        node = node.get(key) if isinstance(node, dict) else None
    return [str(text) for text in node] if isinstance(node, list) else []
