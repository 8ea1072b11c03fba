"""Where a training starts: at its first step, or behind a checkpoint."""

from __future__ import annotations

import logging
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from osediff_exp.checkpoints.integrity import LAST, PREVIOUS, SUMS, is_intact, newest_intact
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """The checkpoint to go on from, None at the first step, with the optimizer steps behind it, the seconds that they took with all
    around them, and those in the steps alone."""

    checkpoint: str | None = None
    steps: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0


def start_of(config: DictConfig, run_dir: Path) -> Start:
    """Return where the training starts; ``resume=auto`` is the run folder's own checkpoint, the one before where it is damaged, if any.

    Raises:
        UserError: ``resume`` names no checkpoint of ours.
    """
    path = checkpoint_to_resume(config, run_dir, steps="steps_taken")
    if path is None:
        return Start()
    content = _read(path)
    return Start(str(path), int(content["steps_taken"]), float(content.get("train_seconds", 0.0)), float(content.get("step_seconds", 0.0)))


def checkpoint_to_resume(config: DictConfig, run_dir: Path, *, steps: str) -> Path | None:
    """Return the checkpoint that ``resume`` names, None for a start at the first step; code in it is never run.

    Args:
        steps: the entry that says how many steps lie behind it.

    Raises:
        UserError: it names no checkpoint of such a training, or one that is damaged.
    """
    if config.resume is None:
        return None
    path = _own_checkpoint(run_dir / "checkpoints") if config.resume == "auto" else _named_checkpoint(Path(config.resume).expanduser())
    if path is None:
        return None
    if not is_intact(path):
        raise UserError(f"resume={path} is damaged: its checksum is not one of {path.parent / SUMS}; give another checkpoint")
    try:
        int(_read(path)[steps])
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(f"resume={path} is no checkpoint of this program ({type(error).__name__}): give a run's last.ckpt") from error
    return path


def _named_checkpoint(path: Path) -> Path:
    """Return the file that ``resume`` names, of a run's folder the newest whole one."""
    found = _own_checkpoint(path / "checkpoints") if path.is_dir() else path
    if found is None or not found.is_file():
        what = "holds no checkpoint" if path.is_dir() else "there is no such file"
        raise UserError(f"resume={path}: {what}; give a run's folder or its checkpoints/last.ckpt, or auto")
    return found


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content


def _own_checkpoint(folder: Path) -> Path | None:
    """Return the run folder's newest whole checkpoint, None where it never had one.

    Raises:
        UserError: it has some, and all are damaged: hours of work are not begun anew without a word.
    """
    found = newest_intact(folder)
    if found is None and any((folder / name).is_file() for name in (LAST, PREVIOUS)):
        raise UserError(f"the checkpoints in {folder} are damaged: remove them to start anew, or give another one with resume=PATH")
    if found is not None and found.name != LAST:
        log.warning("%s is damaged or missing: going on from %s, the one before", folder / LAST, found.name)
    return found
