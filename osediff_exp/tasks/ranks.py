"""The processes (ranks) of one training: who makes what they share, how they end together, and what becomes of the others when one dies."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric.strategies.launchers import subprocess_script
from pytorch_lightning.utilities import rank_zero_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_GRACE = 20.0  # seconds: gloo breaks off at once, and rank 0 then says so and writes its records; NCCL may wait for half an hour
_PATIENCE = 600.0  # seconds without a sign of life; a network file system may show a new file a minute late


def after_rank_zero(ready: Callable[[], bool], *, watched: Path) -> None:
    """Let rank 0 pass at once, to make a file, and the other ranks when it is ``ready``: before a training there is no process group to
    wait in. (Ranks that Lightning starts itself begin when rank 0 has made everything; torchrun and Slurm start all at once.)

    Args:
        ready: tells whether the file is whole, and this training's.
        watched: a file that rank 0 writes meanwhile, again and again where it takes long.

    Raises:
        TimeoutError: rank 0 has written nothing for ten minutes.
    """
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        return
    seen, until = None, time.monotonic() + _PATIENCE
    while not ready():
        if (written := watched.stat().st_mtime_ns if watched.is_file() else None) != seen:
            seen, until = written, time.monotonic() + _PATIENCE
        if time.monotonic() > until:
            raise TimeoutError(f"rank 0 has written nothing to {watched} for {_PATIENCE:.0f} s")
        time.sleep(0.2)


def finish_distributed() -> None:
    """Let all ranks finish together: leaving while others still talk, or rank 0 still writes, crashes now and then."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
    leave_process_group()


def leave_process_group() -> None:
    """Leave the process group, where there is one: another training of this process has other ranks."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


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
