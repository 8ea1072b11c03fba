"""Writing a file so that a reader never sees half of it."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write ``content`` (text as UTF-8, its newlines unchanged) beside ``path`` under a temporary name, then put it in place."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    # The name is unique because two jobs of a parallel sweep may refresh the same report at once.
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # noqa: PTH101 - mkstemp gives 0o600, which a web server or a colleague cannot read
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        os.unlink(temporary)  # noqa: PTH108
        raise
