"""Stopped from outside: what Ctrl-C, a termination signal and Slurm's time limit look like by the time they reach the job.

Lightning and submitit turn signals into exceptions of their own. They are told by name: the command line imports neither.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

_NO_ROOM = {errno.ENOSPC: "free some", errno.EDQUOT: "free some", errno.EROFS: "choose another folder"}

_BACKENDS = ("gloo", "NCCL", "ProcessGroup", "TCPStore")
_LOST = (
    *("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting", "imeout", "remote process exited"),
    *("Connection refused", "connection was likely closed", "communicator was aborted"),
)


class Terminated(SystemExit):
    """A termination signal, outside of Lightning."""


@contextmanager
def termination_raises() -> Iterator[None]:
    """Let a termination signal raise :class:`Terminated` in the block, as Ctrl-C raises KeyboardInterrupt; Lightning has its own way."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_terminated)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _raise_terminated(number: int, frame: object) -> None:
    raise Terminated(128 + number)


def is_interrupt(error: BaseException) -> bool:
    """Tell whether it is Ctrl-C, also where Lightning has made it an exit."""
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt))


def is_termination(error: BaseException) -> bool:
    """Tell whether it is a termination signal; Lightning raises its own exception at the end of the step."""
    return isinstance(error, Terminated) or (isinstance(error, SystemExit) and type(error).__name__ == "SIGTERMException")


def is_time_limit(error: BaseException) -> bool:
    """Tell whether Slurm's warning came that the job's time is almost up (submitit's handler raises then)."""
    return type(error).__name__ == "UncompletedJobError" and "SUBMITIT_EXECUTOR" in os.environ


def requeued_by_slurm(error: BaseException) -> bool:
    """Tell whether the job was preempted and submitit has queued it again: it ends now and goes on later."""
    return isinstance(error, SystemExit) and error.code == -1 and "SUBMITIT_EXECUTOR" in os.environ


def what_stopped_it(error: BaseException, *, in_sweep: bool = False) -> str | None:
    """Return the line for an arm that a signal, the cluster or a lost process stopped, None for one that failed by itself."""
    go_on = f"the same command {'' if in_sweep else 'with resume=auto '}goes on from the last checkpoint"
    if is_termination(error):
        return f"stopped by a termination signal (scancel, kill, preemption?): {go_on}"
    if is_time_limit(error):
        return f"Slurm's time limit (hydra.launcher.timeout_min) came: {go_on}"
    if requeued_by_slurm(error):
        return "preempted: Slurm has queued it again, and it goes on from its last checkpoint then"
    if is_lost_rank(error):
        return f"another process of this run has ended (memory, a signal, a lost machine? its own output may say): {go_on}"
    return None


def is_lost_rank(error: BaseException) -> bool:
    """Tell whether a collective operation failed because another rank is gone or does not answer; gloo and NCCL say so in words alone."""
    text = str(error)
    return isinstance(error, RuntimeError) and any(name in text for name in _BACKENDS) and any(words in text for words in _LOST)


def no_room(error: BaseException | None) -> str | None:
    """Return the line for a disk that is full or cannot be written, also where it is the cause of another error; None otherwise."""
    if (found := _caused_by(error, _NO_ROOM)) is None or found.errno is None:
        return None
    place = f": {found.filename}" if found.filename else ""
    return f"{os.strerror(found.errno)}{place}: {_NO_ROOM[found.errno]} and run the same command again"


def is_full_disk(error: BaseException) -> bool:
    """Tell whether a full disk is behind an error, also one that names the user's folder: that is no mistake of the user's."""
    return _caused_by(error, (errno.ENOSPC, errno.EDQUOT)) is not None


def _caused_by(error: BaseException | None, numbers: Container[int | None]) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return error
        error = error.__cause__ or error.__context__
    return None
