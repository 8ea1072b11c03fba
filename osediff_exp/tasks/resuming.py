"""Where a training starts: at its first step, or behind a checkpoint."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Start:
    """The checkpoint to go on from, None at the first step, with the optimizer steps behind it and the seconds that they took."""

    checkpoint: str | None = None
    steps: int = 0
    seconds: float = 0.0


def start_of(config: DictConfig, run_dir: Path) -> Start:
    """Return where the training starts; ``resume=auto`` is the run folder's own checkpoint, if there is one.

    Raises:
        UserError: ``resume`` names no checkpoint of ours.
    """
    path = run_dir / "checkpoints" / "last.ckpt" if config.resume == "auto" else Path(config.resume or "")
    if config.resume is None or (config.resume == "auto" and not path.is_file()):
        return Start()
    if not path.is_file():
        raise UserError(f"resume={path}: there is no such file; give a run's checkpoints/last.ckpt, or auto")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return Start(str(path), int(content["steps_taken"]), float(content.get("train_seconds", 0.0)))
    except (OSError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise UserError(f"resume={path} is no checkpoint of this program ({type(error).__name__}): give a run's last.ckpt") from error
