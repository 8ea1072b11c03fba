"""Stopped from outside: what Ctrl-C, a termination signal and Slurm's time limit look like by the time they reach the job.

Lightning and submitit turn signals into exceptions of their own. They are told by name: the command line imports neither.
"""

from __future__ import annotations

import os


def is_interrupt(error: BaseException) -> bool:
    """Tell whether it is Ctrl-C, also where Lightning has made it an exit."""
    return isinstance(error, KeyboardInterrupt) or (isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt))


def is_termination(error: BaseException) -> bool:
    """Tell whether it is a termination signal, which Lightning raises at the end of the step."""
    return isinstance(error, SystemExit) and type(error).__name__ == "SIGTERMException"


def is_time_limit(error: BaseException) -> bool:
    """Tell whether Slurm's warning came that the job's time is almost up (submitit's handler raises then)."""
    return type(error).__name__ == "UncompletedJobError" and "SUBMITIT_EXECUTOR" in os.environ


def requeued_by_slurm(error: BaseException) -> bool:
    """Tell whether the job was preempted and submitit has queued it again: it ends now and goes on later."""
    return isinstance(error, SystemExit) and error.code == -1 and "SUBMITIT_EXECUTOR" in os.environ


def what_stopped_it(error: BaseException) -> str | None:
    """Return the line for an arm that a signal or the cluster stopped, None for one that failed by itself."""
    if is_termination(error):
        return "stopped by a termination signal (scancel, kill, preemption?): the same command goes on from the last checkpoint"
    if is_time_limit(error):
        return "Slurm's time limit (hydra.launcher.timeout_min) came: the same command goes on from the last checkpoint"
    if requeued_by_slurm(error):
        return "preempted: Slurm has queued it again, and it goes on from its last checkpoint then"
    return None
