"""The processes that Lightning starts for a run's other ranks: one that dies ends the run within a minute, with a line that says so."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lightning_fabric.strategies.launchers import subprocess_script

if TYPE_CHECKING:
    from collections.abc import Iterator

_GRACE = 20.0  # seconds: gloo breaks off at once, and rank 0 then says so and writes its records; NCCL may wait for half an hour


class _Watch(subprocess_script._ChildProcessObserver):
    """Lightning's own kills this process within 5 s of another's death: before it can write why."""

    run_is_over: threading.Event

    def _terminate_all(self) -> None:
        dead = next((number for number, process in enumerate(self._child_processes, 1) if process.returncode), 0)
        print(f"rank {dead} of this run has ended ({_how(self._child_processes[dead - 1].returncode)})", file=sys.stderr, flush=True)
        until = time.monotonic() + _GRACE
        while time.monotonic() < until:
            if self.run_is_over.wait(0.2):
                return
        print("error: the others wait for it and are killed: resume=auto goes on from the last checkpoint", file=sys.stderr, flush=True)
        super()._terminate_all()


def _how(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


@contextmanager
def ranks_watched() -> Iterator[None]:
    """Let a run that loses a rank in the block end by itself, if it does so in time; what comes after it in this process lives on."""
    over = threading.Event()
    watch: Any = type("Watch", (_Watch,), {"run_is_over": over})
    before: Any = subprocess_script._ChildProcessObserver
    subprocess_script._ChildProcessObserver = watch  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess_script._ChildProcessObserver = before  # type: ignore[misc]
        over.set()
