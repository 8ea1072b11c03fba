"""Which outputs of an earlier run are finished: a small record in the output folder knows what each was made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RECORD_NAME = ".restored.jsonl"


def file_identity(path: Path) -> str:
    """Return what tells a version of a file, or of a folder's files, from another: names, sizes in bytes, times of change."""
    paths = [path] if path.is_file() else sorted(entry for entry in path.rglob("*") if entry.is_file())
    stats = [(str(entry.relative_to(path.parent)), (stat := entry.stat()).st_size, stat.st_mtime_ns) for entry in paths]
    return json.dumps(stats)


def checkpoint_identity(path: Path) -> str:
    """Return what tells a checkpoint from another; of a run folder its last checkpoint counts, not what else the run writes."""
    inside = [path / name for name in ("checkpoints/last.ckpt", "last.ckpt")]
    return file_identity(next((file for file in inside if file.is_file()), path))


def fingerprint(*parts: Mapping[str, Any] | str) -> str:
    """Return 16 hex digits for plain data."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


class FinishedRecord:
    """One line per output, appended BEFORE the output is put in place: its name, what it was made of, its bytes and time.

    A killed run therefore leaves no output that the record does not know, and a line whose output is not there, or is another file, counts
    for nothing.

    Args:
        folder: of the outputs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / RECORD_NAME
        self._entries: dict[str, dict[str, Any]] = {}
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._take(line)

    def _take(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._entries[entry["name"]] = entry
        except (ValueError, KeyError, TypeError):  # the last line of a killed run
            return

    def is_finished(self, target: Path, made_of: str) -> bool:
        """Tell whether the output ``target`` (relative) is there, whole, and made of just this."""
        return self.entry(target, made_of) is not None

    def entry(self, target: Path, made_of: str) -> dict[str, Any] | None:
        """Return what is noted of the output ``target`` if it is finished, else None."""
        entry = self._entries.get(target.as_posix())
        whole = entry is not None and entry["made_of"] == made_of and entry["file"] == _file_state(self.folder / target)
        return entry if whole else None

    def is_foreign(self, target: Path) -> bool:
        """Tell whether a file of that name is there which no run of ours wrote."""
        return target.as_posix() not in self._entries and (self.folder / target).exists()

    def add(self, target: Path, made_of: str, written: Path, **more: float) -> None:
        """Note the output ``target``, whose bytes lie in ``written`` until they are put in place, and ``more`` about it."""
        entry = {"name": target.as_posix(), "made_of": made_of, "file": _file_state(written), **more}
        self._entries[target.as_posix()] = entry
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(entry))  # the break comes first: it ends the line that a killed run left unfinished


def _file_state(path: Path) -> list[int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns]
