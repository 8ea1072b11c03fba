"""Start-up: what ``--help`` and a wrong value take, against what loading the libraries takes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from osediff_exp.errors import UserError

COMMANDS = {
    "startup_help": (["-m", "osediff_exp", "--help"], 0),
    "startup_error": (["-m", "osediff_exp", "trainer.max_steps=-1"], 2),
    "startup_libraries": (["-c", "import osediff_exp.tasks.train"], 0),
}
"""The plain way is the last: a command that loads the training's libraries before it looks at anything."""


def starting() -> dict[str, float]:
    """Return the processor seconds of each of :data:`COMMANDS`: the second call of two, files being in the system's memory by then."""
    return {f"{name}_seconds": min(_seconds(command, code) for _ in range(2)) for name, (command, code) in COMMANDS.items()}


def _seconds(command: Sequence[str], code: int) -> float:
    before = os.times()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    after = os.times()
    if done.returncode != code:
        raise UserError(f"python {' '.join(command)} ended with {done.returncode}, not {code}: {done.stderr.strip()[-200:]}")
    return after.children_user + after.children_system - before.children_user - before.children_system
