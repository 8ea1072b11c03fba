"""Names that the command line's tests share."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CONF = HERE / "conf"
Call = Callable[..., subprocess.CompletedProcess[str]]


def folder(done: subprocess.CompletedProcess[str]) -> Path:
    """Return the folder that a call printed last."""
    return Path(done.stdout.splitlines()[-1])


def result(run_dir: Path) -> dict[str, object]:
    """Return a run's result.json."""
    found: dict[str, object] = json.loads((run_dir / "result.json").read_text())
    return found
