"""Finding the finished runs of earlier stages that a method takes (``method.needs``)."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from osediff_exp.checkpoints.loading import configuration_of, load_checkpoint
from osediff_exp.checkpoints.training_identity import training_of
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Generator

log = logging.getLogger(__name__)

_CHECKPOINT = Path("checkpoints") / "last.ckpt"
_SWEEP_MARKS = ("sweep.json", "multirun.yaml")


def earlier_runs(config: DictConfig, run_dir: Path | None) -> dict[str, str]:
    """Return the name of each part that ``method.needs`` names -> the finished run that gives it: the named one, or the sweep's own.

    Raises:
        UserError: a run is missing.
    """
    found = {}
    for name, path in (config.method.get("needs") or {}).items():
        made_by: Any = OmegaConf.to_container(config.method.made_by[name])
        if (made_by["method"], made_by.get("stage")) == (config.method.name, config.method.stage):
            continue  # this run is that stage
        where = path or _of_the_sweep(made_by, run_dir, seed=config.seed)
        if where is None:
            remedy = f"give method.needs.{name}=RUN" + (", or put it before this one" if _is_in_sweep(run_dir) else "")
            raise UserError(f"method={config.method.name} needs a finished run of {_command(made_by)}: {remedy}")
        found[str(name)] = str(where)
    return found


def earlier_generators(runs: Mapping[str, str], backbone: Backbone, *, packages: Sequence[str] = ()) -> dict[str, Generator]:
    """Return the generators of :func:`earlier_runs`, frozen, on ``backbone``; ``packages`` of others are those that may bring them.

    Raises:
        UserError: a run was trained on another backbone, or cannot be read.
    """
    found = {}
    for name, where in runs.items():
        log.info("method.needs.%s: %s", name, where)
        try:
            found[name] = load_checkpoint(where, backbone=backbone, packages=packages).generator.requires_grad_(False).eval()
        except UserError as error:
            raise UserError(f"method.needs.{name}={where}: {error}") from error
    return found


def earlier_trainings(runs: Mapping[str, str]) -> dict[str, str]:
    """Return which training each of :func:`earlier_runs` is of, whatever its seed (``checkpoints.training_identity``), where it says so.

    Raises:
        UserError: a run's checkpoint is not there, or damaged.
    """
    trainings = {name: training_of(configuration_of(where) or {}) for name, where in runs.items()}
    return {name: training.key for name, training in trainings.items() if training is not None}


def _command(made_by: Mapping[str, Any]) -> str:
    return f"method={made_by['method']}" + (f" method.stage={made_by['stage']}" if made_by.get("stage") else "")


def _is_in_sweep(run_dir: Path | None) -> bool:
    return run_dir is not None and any((run_dir.parent / mark).is_file() for mark in _SWEEP_MARKS)


def _of_the_sweep(made_by: Mapping[str, Any], run_dir: Path | None, *, seed: int) -> Path | None:
    """Return the finished run of this method and stage in ``run_dir``'s sweep, whose other overrides are this run's; one of the same
    seed goes first, then the earlier one.

    What stands beside a single run is not asked: nothing says that it belongs to it.
    """
    if run_dir is None or not _is_in_sweep(run_dir):
        return None
    runs, mine = [], _overrides(run_dir)
    for folder in run_dir.parent.iterdir():
        if folder == run_dir or not all((folder / name).is_file() for name in ("result.json", "config.yaml", _CHECKPOINT)):
            continue
        theirs = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        method = theirs.get("method") or {}
        is_stage = (method.get("name"), method.get("stage")) == (made_by["method"], made_by.get("stage"))
        if is_stage and not _differ(mine, _overrides(folder)):
            runs.append((theirs.get("seed") != seed, _number(folder), folder.name, folder))
    return min(runs)[-1] if runs else None


def _differ(mine: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
    """Whether two runs of a sweep were given other values for a key that says neither the method nor the seed."""
    return any(mine[key] != theirs[key] for key in mine.keys() & theirs.keys() if key not in ("method", "method.stage", "seed"))


def _overrides(folder: Path) -> dict[str, str]:
    """Return key -> value as Hydra noted the run's overrides; none where it noted none."""
    file = folder / ".hydra" / "overrides.yaml"
    texts = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    return dict(text.lstrip("+~").partition("=")[::2] for text in map(str, texts or []))


def _number(folder: Path) -> int:
    """Return the job's number, with which its folder's name begins."""
    match = re.match(r"\d+", folder.name)
    return int(match[0]) if match else 0
