"""Reading run folders: what a run was, how it ended and what it left behind.

A run folder is read as it lies, finished or not. What is missing is empty, what is damaged is left out: one broken file must not cost
the report of the other arms.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from osediff_exp.reporting.run_tables import Curve, current, read_curves, read_per_image

Status = Literal["done", "partial", "failed", "unfinished"]

_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: where it lies; ``name`` is its path inside the sweep folder.
        source: what the given folder that holds it is called where several were given, else "".
        status: done (has ``result.json``), partial (has ``error.txt`` too: it did part of its job, and its figures count), failed (has only
            ``error.txt``) or unfinished (has neither).
        overrides: the run's command-line overrides, one ``key=value`` each.
        config: the composed config as plain nested dicts.
        result: the figures of ``result.json``.
        error: the last line of ``error.txt``.
        curves: column of ``metrics.csv`` -> (step, value) in order of step; values may be nan or infinite.
        per_image: picture name -> metric -> value.
        pictures: lq, bicubic, hq, output -> picture name -> file.
        output_step: step of the output pictures where the final ones are missing, else None.
        restorer: of an evaluation of several, the one whose figures these are, else "".
        last_written: when an unfinished run last wrote a log or a checkpoint (local time), "" for others.
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
    last_written: str = ""
    source: str = ""
    restorer: str = ""

    @property
    def task(self) -> str:
        """The task's name; a run that does not say is taken for a training."""
        node = self.config.get("task") if isinstance(self.config, dict) else None
        return str((node.get("name") if isinstance(node, dict) else node) or self.result.get("task") or "train")

    @property
    def seed(self) -> Any:
        """The seed, of an evaluation that of the training whose weights it has; None where the run does not say."""
        if self.training:
            return self.result.get("training_seed")
        given = [text.split("=", 1)[1] for text in self.overrides if text.lstrip("+").startswith("seed=")]
        seed = self.config.get("seed") if isinstance(self.config, dict) else None
        return seed if seed is not None else int(given[-1]) if given and given[-1].isdigit() else None

    @property
    def training(self) -> str:
        """Of an evaluation, what the training of its weights is called with any seed (``checkpoints.training_identity``); else ""."""
        return str(self.result.get("training") or "") if self.task == "evaluate" else ""

    @property
    def last_step(self) -> int | None:
        """The last logged step, or None where nothing was logged."""
        steps = [points[-1][0] for points in self.curves.values() if points]
        return int(max(steps)) if steps else None


def read_run(folder: Path, name: str | None = None, source: str = "") -> Run:
    """Read one run folder; missing or damaged parts come back empty."""
    result, damage = _read_result(folder / "result.json")
    error = last_line(folder / "error.txt") or damage
    status = _status(result, error)
    restorer = str(result.get("restorer") or "")  # of an evaluation: whose figures are the run's
    curves = read_curves(folder / "metrics.csv")
    outputs, output_step = _outputs(folder / "images", restorer or "output", ended=bool(result), validated=_validated(curves))
    return Run(
        folder=folder,
        name=name or folder.name,
        status=status,
        overrides=tuple(str(item) for item in read_yaml(folder / ".hydra" / "overrides.yaml") or ()),
        config=read_yaml(folder / "config.yaml") or read_yaml(folder / ".hydra" / "config.yaml") or {},
        result=result,
        error=error,
        curves=curves,
        per_image=read_per_image(folder / "per_image.csv", restorer),
        pictures={kind: _pngs(folder / "images" / kind) for kind in ("lq", "bicubic", "hq")} | {"output": outputs},
        output_step=output_step,
        last_written=_last_written(folder) if status == "unfinished" else "",
        source=source,
    )


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file, or None where it is missing or damaged."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_YAML_LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _status(result: dict[str, Any], error: str) -> Status:
    if result:
        return "partial" if error else "done"
    return "failed" if error else "unfinished"


def _last_written(folder: Path) -> str:
    names = ("metrics.csv", "checkpoints/last.ckpt", "config.yaml")
    times = [(folder / name).stat().st_mtime for name in names if (folder / name).is_file()]
    return datetime.fromtimestamp(max(times)).strftime("%Y-%m-%d %H:%M:%S") if times else ""


def read_json(path: Path) -> Any:
    """Return the content of a JSON file, or None where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def launch_order(name: str) -> tuple[float, str]:
    """Return the sort key of a run folder's name: its leading number, then the text."""
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
    return {current(key): value for key, value in result.items()}, ""


def last_line(path: Path) -> str:
    """Return the last line of a file of messages, "" where there is no file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else "failed without a message"


def _pngs(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.png")) if path.is_file()}


def output_pictures(folder: Path, name: str) -> dict[str, Path]:
    """Return picture name -> file of the outputs ``images/name`` of a run folder."""
    return _pngs(folder / "images" / name)


def _validated(curves: dict[str, Curve]) -> int | None:
    """Return the step of the last logged validation."""
    steps = [points[-1][0] for key, points in curves.items() if key.startswith("val/") and points]
    return int(max(steps)) if steps else None


def _outputs(images: Path, name: str, *, ended: bool, validated: int | None) -> tuple[dict[str, Path], int | None]:
    """Return the final output pictures, in the folder ``name``, or those of the last step at which some were written, with that step.

    Every validation writes that folder anew, so that its pictures are final only of a run that has ``ended`` with a result. Of others
    ``images/steps`` says of which step a picture is; where none was kept there, they are of the last one ``validated``.
    """
    newest = _pngs(images / name)
    if newest and ended:
        return newest, None
    for folder in sorted(images.glob("steps/*"), key=lambda path: launch_order(path.name), reverse=True):
        earlier = _pngs(folder)
        if earlier and folder.name.isdigit():
            return earlier, int(folder.name)
    return (newest, validated) if newest and validated is not None else ({}, None)
