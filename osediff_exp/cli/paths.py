"""Is a text of the command line or the configuration a path?"""

from __future__ import annotations

from pathlib import Path


def existing(text: str) -> Path | None:
    """Return the path of what ``text`` names, None where nothing is there."""
    try:
        path = Path(text).expanduser()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # too long for a path, the home of nobody, a null byte
        return None
