"""Tags on disk: files that grow at their end, one per writing process, so that processes never meet (not even on a network file system).

``FOLDER/tags/TAGGER/*.jsonl``: a line that names the tagger, then a line per picture: ``{"key": ..., "tags": [[name, score], ...],
"seconds": ...}``. Readers take whole lines only, so a process that dies in the middle of one costs that line. A picture that two
processes tag at the same time is there twice, with the same tags.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from osediff_exp.errors import UserError
from osediff_exp.models.taggers.base import Tag

log = logging.getLogger(__name__)

_KEY = re.compile(rb'\{"key": "([!#-\[\]-~]+)"')
"""How a picture's line begins."""


@dataclass(frozen=True)
class Entry:
    """A picture's tags, the surest first, and the seconds that it took to find them."""

    tags: tuple[Tag, ...]
    seconds: float


class TagStore:
    """The tags of one tagger, by picture.

    Args:
        root: folder of the cache; None: nothing is kept beyond this process.
        tagger: name of the tagger (see :mod:`osediff_exp.models.prompt_cache.fingerprints`).
        described: what the tagger is, for humans: written into the files.

    Raises:
        UserError: a file in the tagger's folder was written by another one.
    """

    def __init__(self, root: Path | None, *, tagger: str, described: Mapping[str, Any]) -> None:
        self.folder = None if root is None else root / "tags" / tagger
        self.tagger, self.described = tagger, dict(described)
        self._lines: dict[str, bytes] = {}  # parsed when asked for: most are other runs'
        self._read: dict[Path, int] = {}  # bytes taken from each file
        self._own: tuple[int, Path] | None = None  # process, file
        self.refresh()

    def __len__(self) -> int:
        return len(self._lines)

    def get(self, key: str) -> Entry | None:
        """Return what is known of a picture; None where that is nothing, or damaged: it will be tagged again."""
        line = self._lines.get(key)
        return None if line is None else _parsed(line)

    def add(self, found: Mapping[str, Entry]) -> None:
        """Remember pictures; a folder that cannot be written costs the memory of them beyond this process, no more."""
        lines = {
            key: json.dumps({"key": key, "tags": entry.tags, "seconds": round(entry.seconds, 5)}).encode() for key, entry in found.items()
        }
        self._lines |= lines
        if self.folder is None or not found:
            return
        try:
            self._append(lines.values())
        except OSError as error:
            log.warning("tags are not kept: %s cannot be written (%s); prompt.cache=DIR chooses another place", self.folder, error)
            self.folder = None

    def refresh(self) -> None:
        """Take in what other processes have written since the last look."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.jsonl")):
            if path != (self._own or (0, None))[1]:
                with suppress(OSError):  # somebody has cleared the cache
                    self._read_on(path)

    def _append(self, lines: Iterable[bytes]) -> None:
        assert self.folder is not None
        if self._own is None or self._own[0] != os.getpid():  # a forked process writes a file of its own
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own = (os.getpid(), self.folder / f"{os.getpid()}-{secrets.token_hex(6)}.jsonl")
            lines = [json.dumps({"tagger": self.tagger, "described": self.described}).encode(), *lines]
        with self._own[1].open("ab", buffering=0) as file:
            file.write(b"".join(line + b"\n" for line in lines))

    def _read_on(self, path: Path) -> None:
        start = self._read.get(path, 0)
        if path.stat().st_size == start:
            return
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if start == 0 and lines:
            self._check_writer(path, lines.pop(0))
        self._lines |= {key[1].decode(): line for line in lines if (key := _KEY.match(line))}
        self._read[path] = start + len(whole)

    def _check_writer(self, path: Path, line: bytes) -> None:
        header = _json(line)
        if header.get("tagger") != self.tagger:
            wrote = header.get("described") or "something else"
            raise UserError(f"{path} was written by another tagger ({wrote}): move it out of this folder, or choose another prompt.cache")


def others_described(root: Path, tagger: str) -> list[str]:
    """Return, for messages, the other taggers that have tags in a cache."""
    described = []
    for folder in sorted((root / "tags").glob("*/")):
        file = next(folder.glob("*.jsonl"), None)
        if folder.name != tagger and file is not None:
            with file.open("rb") as lines:
                described.append(str(_json(lines.readline()).get("described", {}).get("tagger", folder.name)))
    return sorted(set(described))


def _parsed(line: bytes) -> Entry | None:
    """Return a line's tags; None where it is damaged."""
    found = _json(line)
    try:
        return Entry(tuple(Tag(str(name), float(score)) for name, score in found["tags"]), float(found["seconds"]))
    except (KeyError, TypeError, ValueError):
        return None


def _json(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
