"""What a run folder holds of the steps behind its checkpoint, for the W&B run of a training that goes on.

W&B (0.31) cannot add an offline part to an earlier one: ``wandb sync`` sends each from line 0 and so replaces what is there. So every
part holds the whole history, and only the last one is sent.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from osediff_exp.picture_header import open_picture

Pictures = list[tuple[str, Image.Image]]


def rows_until(folder: Path, step: int) -> list[tuple[int, dict[str, float]]]:
    """Return (step, figures) of the rows of metrics.csv up to ``step``, in order."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(int(row.pop("step")), {key: float(value) for key, value in row.items() if value}) for row in csv.DictReader(file)]
    return [(number, figures) for number, figures in rows if number <= step]


def pictures_until(folder: Path, step: int, names: Sequence[str]) -> list[tuple[int, Pictures]]:
    """Return (step, pictures) of the validations up to ``step``: of each name bicubic, output and original side by side."""
    images = folder / "images"
    found = []
    for number in sorted(int(path.name) for path in images.glob("steps/*") if path.name.isdigit()):
        kinds = ("bicubic", f"steps/{number:06d}", "hq")
        files = {name: [images / kind / f"{name}.png" for kind in kinds] for name in names}
        pictures = [(name, _side_by_side(paths)) for name, paths in files.items() if all(path.is_file() for path in paths)]
        if number <= step and pictures:
            found.append((number, pictures))
    return found


def _side_by_side(paths: Sequence[Path]) -> Image.Image:
    pictures = [_read(path) for path in paths]
    row = Image.new("RGB", (sum(picture.width for picture in pictures), max(picture.height for picture in pictures)))
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width
    return row


def _read(path: Path) -> Image.Image:
    with open_picture(path) as picture:
        return picture.convert("RGB")
