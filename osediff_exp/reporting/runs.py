"""Reading run folders: what a run was, how it ended and what it left behind.

A run folder is read as it lies, finished or not. What is missing is empty, what is damaged is left out: one broken file must not cost
the report of the other arms.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from osediff_exp.errors import UserError

Status = Literal["done", "failed", "unfinished"]
Curve = list[tuple[float, float]]

_MARKS = (".hydra", "result.json", "error.txt", "metrics.csv")
_MAX_DEPTH = 4  # an override such as loss/terms=mse puts a slash, so a level more, into the folder's name
# Figures of older run folders, under the names that they have today.
_OLD_KEY = re.compile(r"\b(bicubic_)?(psnr|ssim)_y$")
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: where it lies; ``name`` is its path inside the sweep folder.
        status: done (has ``result.json``), failed (has ``error.txt``) or unfinished (has neither).
        overrides: the run's command-line overrides, one ``key=value`` each.
        config: the composed config as plain nested dicts.
        result: the figures of ``result.json``.
        error: the last line of ``error.txt``.
        curves: column of ``metrics.csv`` -> (step, value) in order of step; values may be nan or infinite.
        per_image: picture name -> metric -> value.
        pictures: lq, bicubic, hq, output -> picture name -> file.
        output_step: step of the output pictures where the final ones are missing, else None.
    """

    folder: Path
    name: str
    status: Status
    overrides: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    curves: dict[str, Curve] = field(default_factory=dict)
    per_image: dict[str, dict[str, float]] = field(default_factory=dict)
    pictures: dict[str, dict[str, Path]] = field(default_factory=dict)
    output_step: int | None = None

    @property
    def seed(self) -> Any:
        """The seed, or None where the run does not say."""
        given = [text.split("=", 1)[1] for text in self.overrides if text.lstrip("+").startswith("seed=")]
        seed = self.config.get("seed") if isinstance(self.config, dict) else None
        return seed if seed is not None else int(given[-1]) if given and given[-1].isdigit() else None

    @property
    def last_step(self) -> int | None:
        """The last logged step, or None where nothing was logged."""
        steps = [points[-1][0] for points in self.curves.values() if points]
        return int(max(steps)) if steps else None


def read_sweep(sweep_dir: Path) -> list[Run]:
    """Return the runs below ``sweep_dir`` in the order in which they were launched.

    Raises:
        UserError: the folder is missing, holds no run, or is itself a run.
    """
    if not sweep_dir.is_dir():
        raise UserError(f"the sweep folder '{sweep_dir}' does not exist; give the folder that holds multirun.yaml")
    if _is_run(sweep_dir):
        raise UserError(f"'{sweep_dir}' is a single run; give the sweep folder that holds it: '{sweep_dir.resolve().parent}'")
    names = sorted((folder.relative_to(sweep_dir).as_posix() for folder in _run_folders(sweep_dir)), key=_launch_order)
    if not names:
        raise UserError(f"no run folders in '{sweep_dir}'; give the folder that holds multirun.yaml and the runs 0_..., 1_...")
    return [read_run(sweep_dir / name, name) for name in names]


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read one run folder; missing or damaged parts come back empty."""
    result, damage = _read_result(folder / "result.json")
    error = _last_line(folder / "error.txt") or damage
    outputs, output_step = _outputs(folder / "images")
    return Run(
        folder=folder,
        name=name or folder.name,
        status="done" if result else "failed" if error else "unfinished",
        overrides=tuple(str(item) for item in read_yaml(folder / ".hydra" / "overrides.yaml") or ()),
        config=read_yaml(folder / "config.yaml") or read_yaml(folder / ".hydra" / "config.yaml") or {},
        result=result,
        error="" if result else error,
        curves=_read_curves(folder / "metrics.csv"),
        per_image=_read_per_image(folder / "per_image.csv"),
        pictures={kind: _pngs(folder / "images" / kind) for kind in ("lq", "bicubic", "hq")} | {"output": outputs},
        output_step=output_step,
    )


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file, or None where it is missing or damaged."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _is_run(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _MARKS)


def _run_folders(sweep_dir: Path) -> list[Path]:
    found = []
    for root, children, _ in os.walk(sweep_dir):
        here = Path(root)
        if here != sweep_dir and _is_run(here):
            found.append(here)
            children.clear()
        elif len(here.relative_to(sweep_dir).parts) >= _MAX_DEPTH:
            children.clear()
    return found


def _launch_order(name: str) -> tuple[float, str]:
    number = re.match(r"\d+", name)
    return (int(number.group()) if number else math.inf, name)


def _read_result(path: Path) -> tuple[dict[str, Any], str]:
    """Return (figures, "") or ({}, what is wrong with the file)."""
    if not path.is_file():
        return {}, ""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, f"result.json cannot be read: {error}"
    if not isinstance(result, dict) or not result:
        return {}, "result.json holds no figures"
    return {_current(key): value for key, value in result.items()}, ""


def _current(key: str) -> str:
    return _OLD_KEY.sub(lambda match: (match[1] or "") + match[2], key)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else "failed without a message"


def _lines(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return list(csv.reader(file))
    except (OSError, csv.Error):
        return []


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            return list(csv.DictReader(file, restval=""))
    except (OSError, csv.Error):
        return []


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _read_curves(path: Path) -> dict[str, Curve]:
    # Column by column: a long training has hundreds of thousands of cells, and a report is written after every run of a sweep.
    lines = _lines(path)
    header = lines[0] if lines else []
    if "step" not in header:
        return {}
    at = header.index("step")
    rows = [(step, line) for line in lines[1:] if len(line) > at and (step := _number(line[at])) is not None and math.isfinite(step)]
    rows.sort(key=lambda row: row[0])
    curves = {}
    for place, key in enumerate(header):
        points = [(step, value) for step, line in rows if place < len(line) and (value := _number(line[place])) is not None]
        if points and key not in ("step", "epoch"):
            curves[_current(key)] = points
    return curves


def _read_per_image(path: Path) -> dict[str, dict[str, float]]:
    table = {}
    for row in _rows(path):
        values = {_current(key): _number(text) for key, text in row.items() if isinstance(key, str) and key != "name"}
        table[str(row.get("name", ""))] = {key: value for key, value in values.items() if value is not None}
    return table


def _pngs(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.png")) if path.is_file()}


def _outputs(images: Path) -> tuple[dict[str, Path], int | None]:
    """Return the final output pictures, or those of the last step at which some were written, with that step."""
    final = _pngs(images / "output")
    if final:
        return final, None
    for folder in sorted(images.glob("steps/*"), key=lambda path: _launch_order(path.name), reverse=True):
        earlier = _pngs(folder)
        if earlier and folder.name.isdigit():
            return earlier, int(folder.name)
    return {}, None
