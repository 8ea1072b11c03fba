"""Prompts from a file beside the data: tags or captions that somebody, or another program, has written down."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from osediff_exp.data.images import IMAGE_SUFFIXES
from osediff_exp.errors import UserError, nearest
from osediff_exp.models.places import find_file
from osediff_exp.models.prompts import PromptExtractor, split_prompt

_NAME, _TAGS = ("name", "file", "image"), ("tags", "prompt", "caption", "text")


class SidecarPrompt(PromptExtractor):
    """What a CSV (columns ``name`` and ``tags``) or a JSONL file (an object per line) says of each picture, between prefix and suffix.

    A picture goes by its name, with or without suffix and folder; ``tags`` is a text, or in JSONL a list. A picture with an empty text gets
    the other words alone; one that the file does not name is an error.

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
        self.texts = read_sidecar(self.path)
        self.prompt, self.prefix, self.max_tags = prompt, prefix, max_tags

    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        self.expect(names)
        return [", ".join(filter(None, [self.prefix, self._cut(self.texts[name]), self.prompt])) for name in names]

    def expect(self, names: Sequence[str]) -> None:
        absent = [name for name in dict.fromkeys(names) if name not in self.texts]
        if absent:
            others = f" (and {len(absent) - 1} more)" if len(absent) > 1 else ""
            known = f"it names {', '.join(list(self.texts)[:3])}, ..." if len(self.texts) > 3 else f"it names {', '.join(self.texts)}"
            raise UserError(
                f"prompt.file={self.path} has no line for the picture {absent[0]}{others}; {known}: add a line for each, or give the "
                f"file that belongs to these pictures.{nearest(absent[0], self.texts)}"
            )

    def _cut(self, text: str) -> str:
        return text if self.max_tags is None else ", ".join(split_prompt(text)[: self.max_tags])


def read_sidecar(path: Path) -> dict[str, str]:
    """Return the text of every picture, by its name without folder and suffix; UserError where the file is not what it should be."""
    rows = _json_rows if path.suffix in (".jsonl", ".ndjson", ".json") else _csv_rows
    texts: dict[str, str] = {}
    try:
        for number, row in rows(path):
            name, text = _field(row, _NAME, path, number), _field(row, _TAGS, path, number)
            stem = Path(name).stem if Path(name).suffix.lower() in IMAGE_SUFFIXES else Path(name).name
            if texts.setdefault(stem, text) != text:
                raise UserError(f"{path}, line {number}: '{stem}' is listed twice with different texts: keep one line")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}): give a CSV or JSONL file of UTF-8 text") from error
    if not texts:
        raise UserError(f"{path} names no picture: give a line for each, with name and tags")
    return texts


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
