"""Who is working in a folder: an advisory lock that the system lets go when its process ends, however it ends."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

try:
    import fcntl
except ImportError:  # Windows: nobody is ever seen at work
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = ".lock"
_PATIENCE = 0.3  # seconds


@contextmanager
def hold(folder: Path) -> Iterator[bool]:
    """Hold the folder's lock while the block runs; yield whether it could be had. The folder must exist.

    Whoever asks :func:`is_held` has the lock for a moment, so it is tried for a while.
    """
    with (folder / LOCK).open("a") as file:
        until = time.monotonic() + _PATIENCE
        while not (taken := _take(file)) and time.monotonic() < until:
            time.sleep(_PATIENCE / 20)
        yield taken


def is_held(folder: Path) -> bool:
    """Tell whether another process, or another :func:`hold` of this one, is at work in ``folder``."""
    if not (folder / LOCK).is_file():
        return False
    with (folder / LOCK).open("a") as file:
        return not _take(file)


def _take(file: IO[str]) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: work on, as every program there must
        return True
    return True
