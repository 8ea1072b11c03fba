"""Checkpoints that are whole: on the disk before they count, with a checksum, and the one before kept."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

LAST, PREVIOUS, SUMS = "last.ckpt", "previous.ckpt", "sha256.txt"
_KEPT = 3  # the new one, the last and the one before: whatever moment a kill finds, each file's sum is listed


def put_in_place(part: Path) -> None:
    """Make ``part``, a finished file, the folder's ``last.ckpt``; the one that was is ``previous.ckpt`` then.

    At every moment ``last.ckpt`` is a whole checkpoint: the new one's bytes and checksum are on the disk before it takes the name.

    Raises:
        OSError: the disk is full; the checkpoints are as they were.
    """
    folder = part.parent
    _to_disk(part)
    _write_sums(folder, [_sum(part), *_sums(folder)][:_KEPT])
    last, previous = folder / LAST, folder / PREVIOUS
    if last.exists():
        second_name = folder / f"{PREVIOUS}.part"
        second_name.unlink(missing_ok=True)
        try:
            os.link(last, second_name)
        except OSError:  # a file system without hard links: for a moment the previous one is the only one
            last.replace(second_name)
        second_name.replace(previous)
    part.replace(last)
    _to_disk(folder)


def is_intact(path: Path) -> bool:
    """Tell whether a checkpoint's checksum is listed; where its folder lists none (an older one's) it is taken as it is."""
    sums = _sums(path.parent)
    return not sums or _sum(path) in sums


def newest_intact(folder: Path) -> Path | None:
    """Return the folder's last checkpoint, the one before it where that is damaged or missing, or None where there is none."""
    return next((path for name in (LAST, PREVIOUS) if (path := folder / name).is_file() and is_intact(path)), None)


def _sums(folder: Path) -> list[str]:
    try:
        return (folder / SUMS).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _write_sums(folder: Path, sums: list[str]) -> None:
    part = folder / f"{SUMS}.part"
    try:
        part.write_text("".join(f"{text}\n" for text in sums), encoding="ascii")
        _to_disk(part)
        part.replace(folder / SUMS)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until a file, or a folder's names, are on the disk; some file systems cannot say so of folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)
