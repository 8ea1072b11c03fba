"""What a run leaves in its folder: config.yaml, then result.json or error.txt (with error.log for a bug), or why it was left out."""

from __future__ import annotations

import json
import math
import os
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from osediff_exp import __version__
from osediff_exp.cli.locks import is_held

if TYPE_CHECKING:
    from collections.abc import Mapping

Figure = float | int | str | None
RESULT, ERROR, ERROR_LOG, CONFIG = "result.json", "error.txt", "error.log", "config.yaml"
SKIPPED = "skipped.txt"
_mistaken: set[Path] = set()  # folders of this process's runs that the user's mistake ended


def start_records(run_dir: Path, config: DictConfig) -> None:
    """Remove what an earlier run left in a reused folder and write the resolved configuration."""
    _mistaken.discard(run_dir.resolve())
    source_commit()  # read now and kept: a commit made while the run goes on is not the code that runs
    for name in (RESULT, ERROR, ERROR_LOG, SKIPPED):
        (run_dir / name).unlink(missing_ok=True)
    write_text(run_dir / CONFIG, OmegaConf.to_yaml(config, resolve=True))


def write_result(run_dir: Path, *, task: str, seconds: float, figures: Mapping[str, Figure]) -> None:
    """Write result.json: one flat object.

    JSON has no NaN: a number that is not finite becomes null, and ``not_finite`` says what it was ("kid=nan, train_loss=inf").
    """
    result = {**figures, "task": task, "seconds": round(seconds, 3), "version": __version__, "commit": source_commit()}
    plain = {key: _plain(value) for key, value in result.items()}
    if lost := [f"{key}={result[key]}" for key, value in plain.items() if value is None and result[key] is not None]:
        plain["not_finite"] = ", ".join(lost)
    write_text(run_dir / RESULT, json.dumps(plain, indent=2, allow_nan=False) + "\n")


def write_skipped(run_dir: Path, config: DictConfig, line: str) -> None:
    """Leave an arm's configuration, and in skipped.txt why it is left out of its sweep."""
    start_records(run_dir, config)
    write_text(run_dir / SKIPPED, line + "\n")


def write_error(run_dir: Path, line: str, log: str | None = None, *, mistake: bool = False) -> None:
    """Write error.txt (one line) and, for a bug, error.log (the traceback); ``mistake``: the user's, which the exit status tells."""
    if mistake:
        _mistaken.add(run_dir.resolve())
    if log is not None:
        write_text(run_dir / ERROR_LOG, log)
    write_text(run_dir / ERROR, line + "\n")


def exit_status(folder: Path, multirun: bool) -> int:
    """Return 0 where every run did its whole job; for a single run 2 for the user's mistake; else 1.

    A lost process, a full disk and a photo that cannot be read are no mistakes: the same command may do next time. A run that did only
    part of its job has both a result and an error.
    """
    if not multirun:
        return 0 if is_whole(folder) else 2 if folder.resolve() in _mistaken else 1
    arms = _arms(folder)
    return 0 if arms and all(map(is_whole, arms)) else 1


def failed_arms(folder: Path) -> tuple[int, int]:
    """Return (arms that did not do their whole job, arms) of the sweep just run in ``folder``."""
    arms = _arms(folder)
    return sum(not is_whole(arm) for arm in arms), len(arms)


def working_arms(folder: Path) -> list[Path]:
    """Return the arms of the sweep just run in which a process is still at work."""
    return [arm for arm in _arms(folder) if is_held(arm)]


def note_silent(folder: Path, line: str, multirun: bool) -> list[str]:
    """Write ``line`` into error.txt of the runs just made that ended without a word, and return their names."""
    runs = _arms(folder) if multirun else [folder] * (folder / CONFIG).is_file()
    silent = [run for run in runs if not any((run / name).is_file() for name in (RESULT, ERROR, SKIPPED)) and not is_held(run)]
    for run in silent:
        with suppress(OSError):
            write_error(run, line)
    return [run.name for run in silent]


def is_whole(folder: Path) -> bool:
    """Tell whether the run in ``folder`` did its whole job, or had none."""
    return any((folder / name).is_file() for name in (RESULT, SKIPPED)) and not (folder / ERROR).is_file()


def write_text(path: Path, text: str) -> None:
    """Write a file that is either whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@cache
def source_commit() -> str | None:
    """Return the commit of the checkout the package runs from, with ``-dirty`` where package or configuration differ, else None."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", "osediff_exp", "conf")
    return f"{commit}-dirty" if commit and changed else commit or None


def _git(root: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _arms(folder: Path) -> list[Path]:
    """Return the arms of the last sweep: a reused folder may hold older ones, whose config.yaml is older than multirun.yaml."""
    sweep = folder / "multirun.yaml"
    since = sweep.stat().st_mtime_ns if sweep.is_file() else 0
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG}") if path.stat().st_mtime_ns >= since)


def _plain(value: object) -> Figure:
    scalar = value.item() if hasattr(value, "item") else value
    if isinstance(scalar, float) and not math.isfinite(scalar):
        return None
    assert scalar is None or isinstance(scalar, str | int | float), f"a task's figures are numbers, texts or None, not {scalar!r}"
    return scalar
