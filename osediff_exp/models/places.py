"""Where files of the user's own are looked for and kept: weights that this package does not carry, and caches. No torch."""

from __future__ import annotations

import os
from pathlib import Path

from osediff_exp.errors import UserError, nearest

WEIGHTS_VARIABLE, CACHE_VARIABLE = "OSEDIFF_WEIGHTS", "OSEDIFF_CACHE"


def cache_root() -> Path:
    """Return the folder of this package's caches: ``$OSEDIFF_CACHE``, else ``osediff_exp`` in the user's cache folder."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "osediff_exp"


def weight_folders() -> list[Path]:
    """Return where a file given by its bare name is looked for, in order."""
    chosen = os.environ.get(WEIGHTS_VARIABLE)
    return [*([Path(chosen).expanduser()] if chosen else []), Path("weights"), cache_root() / "weights"]


def find_file(name: str, key: str) -> Path:
    """Return the file or folder that ``name`` stands for: a path that exists, else its last part in one of :func:`weight_folders`.

    The second makes a checkpoint that names weights by their path usable on another machine.

    Args:
        name: path or bare name.
        key: the configuration key that gave it, for the message.

    Raises:
        UserError: it is nowhere.
    """
    given = Path(name).expanduser()
    candidates = [given, *(folder / given.name for folder in weight_folders())]
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        beside = [entry.name for path in candidates if path.parent.is_dir() for entry in path.parent.iterdir()]
        places = ", ".join(str(path.parent) for path in dict.fromkeys(candidates))
        remedy = f"give its path, or put it where ${WEIGHTS_VARIABLE} points"
        raise UserError(f"{key}={name} is not in {places}: {remedy}.{nearest(given.name, beside)}")
    return found
