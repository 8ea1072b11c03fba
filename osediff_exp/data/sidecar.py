"""Prompts from a file beside the data: tags or captions that somebody, or another program, has written down."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor

from osediff_exp.data.images import IMAGE_SUFFIXES
from osediff_exp.data.photo_files import PhotoFile
from osediff_exp.errors import UserError, nearest, shown
from osediff_exp.models.places import find_file
from osediff_exp.models.prompts import PromptExtractor, split_prompt
from osediff_exp.models.taggers.base import Photo

_NAME, _TAGS = ("name", "file", "image"), ("tags", "prompt", "caption", "text")


@dataclass(frozen=True)
class Line:
    """What the file says of a picture: the picture as the file calls it, with the folders and the suffix that stand there, and the text."""

    picture: PurePath
    text: str

    def fit(self, path: Path | None) -> tuple[int, bool]:
        """Return how well the line fits a file, to be compared: folders that agree (-1: another folder), and whether the suffix does."""
        folder = self.picture.parent.parts
        if path is None:
            return 0, False
        agrees = not folder or path.parent.parts[-len(folder) :] == folder
        return len(folder) if agrees else -1, self.picture.name == path.name


class SidecarPrompt(PromptExtractor):
    """What a CSV (columns ``name`` and ``tags``) or a JSONL file (an object per line) says of each picture, between prefix and suffix.

    A picture goes by its name, with or without suffix and folder; ``tags`` is a text, or in JSONL a list. Where several lines have one
    name (``a/1.png``, ``b/1.png``), the one whose folders agree with the picture's counts. A picture with an empty text gets the other
    words alone; one that the file does not name, or names twice, is an error.

    Args:
        file: the path.
        prompt: the suffix, the same for every image.
        prefix: words before.
        max_tags: most comma-separated terms that are taken; None: the whole text as it stands.

    Raises:
        UserError: the file is missing, damaged, empty or names a picture twice.
    """

    def __init__(self, *, file: str, prompt: str = "", prefix: str = "", max_tags: int | None = None) -> None:
        if max_tags is not None and max_tags < 1:
            raise UserError(f"prompt.max_tags={max_tags}: give at least 1, or choose prompt=fixed for no tags")
        self.path = find_file(file, "prompt.file")
        self.lines = read_sidecar(self.path)
        self.prompt, self.prefix, self.max_tags = prompt, prefix, max_tags

    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        return [self._prompt(self._line(name)) for name in names]

    def of_crops(self, images: Tensor, names: list[str], paths: list[str]) -> list[str]:
        return [self._prompt(self._line(name, Path(path))) for name, path in zip(names, paths, strict=True)]

    def of_photos(self, photos: Sequence[Photo], *, like: Tensor) -> list[str]:
        return [self._prompt(self._line(photo.name, photo.path if isinstance(photo, PhotoFile) else None)) for photo in photos]

    def expect(self, names: Sequence[str], paths: Sequence[Path]) -> None:
        """Raise UserError where a picture has no line, or several, or where two pictures have one."""
        if absent := [path for name, path in zip(names, paths, strict=True) if not self._lines(name, path)]:
            raise self._no_line(absent[0].stem, others=len(set(absent)) - 1)
        told: dict[Line, Path] = {}
        for name, path in zip(names, paths, strict=True):
            line = self._line(name, path)
            if (other := told.setdefault(line, path)) != path:
                raise UserError(
                    f"prompt.file={self.path} has one line, {line.picture}, for {shown(other)} and {shown(path)}: write a line for each, "
                    "with the folder before the name (as task=tag does for the folder that holds both)"
                )

    def _line(self, name: str, path: Path | None = None) -> Line:
        lines = self._lines(name, path)
        if not lines:
            raise self._no_line(name)
        file = path and path.absolute()
        best = max(line.fit(file) for line in lines)
        found = [line for line in lines if line.fit(file) == best]
        if len({line.text for line in found}) > 1:
            listed = " and ".join(str(line.picture) for line in found[:2])
            raise UserError(
                f"prompt.file={self.path} says several things of the picture {path or name} ({listed}): keep one line, or rename"
            )
        return found[0]

    def _lines(self, name: str, path: Path | None) -> list[Line]:
        return self.lines.get(name) or self.lines.get(path.stem if path else name) or []

    def _no_line(self, name: str, others: int = 0) -> UserError:
        more = f" (and {others} more)" if others else ""
        known = f"it names {', '.join(list(self.lines)[:3])}, ..." if len(self.lines) > 3 else f"it names {', '.join(self.lines)}"
        return UserError(
            f"prompt.file={self.path} has no line for the picture {name}{more}; {known}: add a line for each, or give the "
            f"file that belongs to these pictures.{nearest(name, self.lines)}"
        )

    def _prompt(self, line: Line) -> str:
        text = line.text if self.max_tags is None else ", ".join(split_prompt(line.text)[: self.max_tags])
        return ", ".join(filter(None, [self.prefix, text, self.prompt]))


def read_sidecar(path: Path) -> dict[str, list[Line]]:
    """Return the lines by the picture's name without folder and suffix; UserError where the file is not what it should be."""
    rows = _json_rows if path.suffix in (".jsonl", ".ndjson", ".json") else _csv_rows
    texts: dict[PurePath, str] = {}
    try:
        for number, row in rows(path):
            picture, text = PurePath(_field(row, _NAME, path, number)), _field(row, _TAGS, path, number)
            if texts.setdefault(picture, text) != text:
                raise UserError(f"{path}, line {number}: '{picture}' is listed twice with different texts: keep one line")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}): give a CSV or JSONL file of UTF-8 text") from error
    if not texts:
        raise UserError(f"{path} names no picture: give a line for each, with name and tags")
    lines: dict[str, list[Line]] = {}
    for picture, text in texts.items():
        name = picture.stem if picture.suffix.lower() in IMAGE_SUFFIXES else picture.name
        lines.setdefault(name, []).append(Line(picture, text))
    return lines


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for row in reader:
            yield reader.line_num, {str(name).strip().lower(): value for name, value in row.items() if name is not None}


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise UserError(f"{path}, line {number} is no JSON ({error}): give one object per line") from error
                if not isinstance(row, dict):
                    raise UserError(f'{path}, line {number} is no object: write {{"name": ..., "tags": ...}}')
                yield number, row


def _field(row: dict[str, Any], names: Sequence[str], path: Path, number: int) -> str:
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if value is None:
        raise UserError(f"{path}, line {number} has no '{names[0]}': it needs name and tags (columns of a CSV, keys of a JSONL line)")
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value).strip()
