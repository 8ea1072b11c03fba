"""Which runs a comparison shows: those of a sweep, of a folder of single runs, one run, or several of these."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from osediff_exp.errors import UserError
from osediff_exp.reporting.evaluations import by_restorer
from osediff_exp.reporting.runs import Run, last_line, launch_order, read_json, read_run
from osediff_exp.reporting.short_names import shortest_endings

if TYPE_CHECKING:
    from collections.abc import Sequence

_RUN_MARKS = (".hydra", "result.json", "error.txt", "metrics.csv")
_SWEEP_MARKS = ("sweep.json", "multirun.yaml")
_MAX_DEPTH = 4  # an override such as loss/terms=mse puts a slash, so a level more, into the folder's name
_NOTHING_TO_COMPARE = ("report", "doctor")
_MOST_LIKELY = ("train", "evaluate")  # of a folder that mixes single runs of several tasks
_MOST_NAMES = 5


@dataclass
class Found:
    """The runs, in order of launch, folder by folder; the numbers of a sweep's jobs that left no folder; what is odd."""

    runs: list[Run] = field(default_factory=list)
    never_started: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_runs(folders: Sequence[Path]) -> Found:
    """Read the runs of the given sweeps, runs and folders of single runs; an evaluation of several restorers is a run for each.

    Of several folders each run carries the name of its own (``source``); a run that two of them hold is read once.

    Raises:
        UserError: a folder is missing, holds no run, or holds sweeps without being one.
    """
    if len(folders) == 1:
        return _find(folders[0], "")
    parts = [folder.resolve().parts for folder in folders]
    found, seen = Found(), set()
    for folder, ending in zip(folders, shortest_endings(parts), strict=True):
        source = "/".join(ending)
        one = _find(folder, source)
        found.runs += [run for run in one.runs if run.folder.resolve() not in seen]
        seen |= {run.folder.resolve() for run in one.runs}
        found.notes += [f"{source}: {text}" for text in [*one.notes, missing_jobs(one.never_started)] if text]
    return found


def is_sweep(folder: Path) -> bool:
    """Tell whether a sweep was started in ``folder``; it may hold an error.txt of its own (its launcher's)."""
    return any((folder / mark).exists() for mark in _SWEEP_MARKS)


def _find(folder: Path, source: str) -> Found:
    if not folder.is_dir():
        raise UserError(f"the folder '{folder}' does not exist; give the folder of a sweep or of a run, or a list of them")
    sweep = is_sweep(folder)
    if not sweep and _is_run(folder):
        return _chosen(folder, by_restorer(read_run(folder, source or None, source)), [])
    names, sweeps = _inside(folder)
    if sweeps and not sweep:
        raise UserError(_which_sweep(folder, sweeps))
    skipped = {name: reason for name in names if (reason := last_line(folder / name / "skipped.txt"))}
    runs = [read_run(folder / name, f"{source}/{name}" if source else name, source) for name in names if name not in skipped]
    tasks = [run.task for run in runs if run.task not in _NOTHING_TO_COMPARE]
    wanted = set(tasks) if sweep else {next((task for task in _MOST_LIKELY if task in tasks), next(iter(tasks), ""))}
    left_out = [run for run in runs if run.task not in wanted]
    chosen = [one for run in runs if run.task in wanted for one in by_restorer(run)]
    found = _chosen(folder, chosen, left_out, _never_started(folder, names))
    found.notes += [f"Left out, as they cannot be: {'; '.join(dict.fromkeys(skipped.values()))}."] if skipped else []
    return found


def _chosen(folder: Path, runs: list[Run], left_out: list[Run], never_started: Sequence[int] = ()) -> Found:
    """Return what was found, with a line on what was left out and one on a launcher that failed."""
    nothing = [run for run in runs if run.task in _NOTHING_TO_COMPARE]
    line = last_line(folder / "error.txt") if is_sweep(folder) else ""
    failed = f"The sweep's launcher failed: {line}" if line else ""
    if nothing:
        raise UserError(f"'{folder}' is a run of task={nothing[0].task}, which has no figures to compare; give a training or a sweep")
    if not runs:
        only = f", only of {_listed({f'task={run.task}' for run in left_out})}" if left_out else ""
        reason = f" ({failed})" if failed else ""
        raise UserError(f"no run folders in '{folder}'{only}{reason}; give the folder of a sweep or of a run, or a list of them")
    others = f"Left out, as of another task: {_listed([f'{run.name} ({run.task})' for run in left_out])}." if left_out else ""
    return Found(runs, list(never_started), [text for text in (failed, others) if text])


def _is_run(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _RUN_MARKS)


def _inside(top: Path) -> tuple[list[str], list[Path]]:
    """Return the names of the run folders below ``top`` in order of launch, and the sweeps below it, which are not entered."""
    runs: list[Path] = []
    sweeps: list[Path] = []
    for root, children, _ in os.walk(top):
        here = Path(root)
        inside = here != top
        if inside and (is_sweep(here) or _is_run(here)):
            (sweeps if is_sweep(here) else runs).append(here)
            children.clear()
        elif len(here.relative_to(top).parts) >= _MAX_DEPTH:
            children.clear()
    return sorted((folder.relative_to(top).as_posix() for folder in runs), key=launch_order), sorted(sweeps)


def _never_started(sweep_dir: Path, names: Sequence[str]) -> list[int]:
    """Return the numbers of the sweep's jobs that left no folder; without a ``sweep.json`` that counts the jobs, nothing is missing."""
    record = read_json(sweep_dir / "sweep.json")
    planned = record.get("num_arms") if isinstance(record, dict) else None
    begun = {int(number.group()) for name in names if (number := re.match(r"\d+", name))}
    return [number for number in range(planned if isinstance(planned, int) else 0) if number not in begun]


def _which_sweep(folder: Path, sweeps: Sequence[Path]) -> str:
    newest = [str(path) for path in sorted(sweeps, key=lambda path: path.stat().st_mtime, reverse=True)]
    if len(sweeps) == 1:
        return f"'{folder}' is no sweep, but holds one: give runs={newest[0]}"
    return f"'{folder}' holds {len(sweeps)} sweeps: give one of them, or several as runs=[A,B]: {_listed(newest)}"


def _listed(texts: Sequence[str] | set[str]) -> str:
    names = sorted(texts) if isinstance(texts, set) else list(texts)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def missing_jobs(numbers: Sequence[int]) -> str:
    """Write "3 runs never started (jobs 4, 5, 7)", or "" where all did."""
    if not numbers:
        return ""
    listed = f"job{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
    return f"{len(numbers)} run{'s' if len(numbers) > 1 else ''} never started ({listed})"
