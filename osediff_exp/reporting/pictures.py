"""Which validation pictures stand side by side."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from osediff_exp.picture_header import open_picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL import Image

    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.runs import Run

_INPUTS = {"lq": "LQ", "bicubic": "bicubic", "hq": "HQ (original)"}


@dataclass(frozen=True)
class Column:
    """A column of the grid: its heading, kind (lq, bicubic, output, hq), files by picture name, the arm whose output it is, and the runs
    that it shows (of inputs: all that were given them)."""

    title: str
    kind: str
    files: dict[str, Path]
    arm: Row | None = None
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Pictures:
    """The grid: one row per name, one column per source; a column may lack a name."""

    names: list[str]
    columns: list[Column]


def choose_pictures(arms: Sequence[Row]) -> Pictures:
    """Return LQ, bicubic, every arm's output and HQ as columns, the picture names as rows.

    Where arms were validated on different inputs (a sweep over degradations), each distinct LQ or bicubic has a column of its own:
    an output next to an input that it was not made from would mislead.
    """
    low, bicubic = _inputs(arms, "lq"), _inputs(arms, "bicubic")
    if len(low) == len(bicubic) and all(_same(*pair) for pair in zip(low, bicubic, strict=True)):
        # The network's input is the bicubic enlargement itself: one column says it all.
        low, bicubic = [], [replace(column, title=column.title.replace("bicubic", "LQ (bicubic)", 1)) for column in bicubic]
    columns = [*low, *bicubic, *_outputs(arms), *_inputs(arms, "hq")]
    return Pictures(sorted({name for column in columns for name in column.files}), columns)


def load_picture(path: Path) -> Image.Image | None:
    """Return the picture as RGB, or None where the file is missing or damaged."""
    try:
        with open_picture(io.BytesIO(path.read_bytes())) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError):  # what is raised of damaged files
        return None


def _inputs(arms: Sequence[Row], kind: str) -> list[Column]:
    groups: list[tuple[dict[str, str], dict[str, Path], str, list[Run]]] = []
    for arm in arms:
        run = arm.run
        files = run.pictures.get(kind, {}) if run else {}
        prints = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
        group = next((group for group in groups if all(group[0].get(name, print_) == print_ for name, print_ in prints.items())), None)
        if run is None or not files:
            continue
        if group is None:
            groups.append((prints, dict(files), arm.label, [run]))
            continue
        group[0].update(prints)
        group[1].update(files)
        group[3].append(run)
    title = _INPUTS[kind]
    return [Column(title if len(groups) == 1 else f"{title}: {label}", kind, files, None, tuple(runs)) for _, files, label, runs in groups]


def _same(one: Column, other: Column) -> bool:
    return one.files.keys() == other.files.keys() and all(
        path.read_bytes() == other.files[name].read_bytes() for name, path in one.files.items()
    )


def _outputs(arms: Sequence[Row]) -> list[Column]:
    columns = []
    for arm in arms:
        if arm.run and arm.run.pictures.get("output"):
            early = "" if arm.run.output_step is None else f" (step {arm.run.output_step})"
            columns.append(Column(arm.label + early, "output", arm.run.pictures["output"], arm, (arm.run,)))
    return columns
