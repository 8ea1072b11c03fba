"""How a command ends, whatever ends it: the reason in one line, each arm's fate in its folder, the report, and the folder as last line."""

from __future__ import annotations

import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import open_dict

from osediff_exp.cli.messages import one_line
from osediff_exp.cli.records import CONFIG, ERROR_LOG, exit_status, failed_arms, note_silent, working_arms, write_error, write_text
from osediff_exp.cli.slurm import jobs_left, wait_for_jobs
from osediff_exp.cli.stops import is_interrupt, no_room, termination_raises
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from osediff_exp.cli.preflight import Plan

_INTERRUPTED, _TERMINATED = 130, 143
_KILLED = "killed from outside (memory, time limit, a signal?): the same command goes on with it"
_GRACE = 10.0  # seconds that the processes of a launcher that is gone have to end


def run_to_the_end(plan: Plan, start: Callable[[], None]) -> int:
    """Call ``start`` and return the exit status: 0 done, 1 failed, 2 the user's mistake, 130 and 143 interrupted."""
    status = 0
    try:
        with termination_raises():
            start()
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        status = _status(error)
        with suppress(KeyboardInterrupt):  # a second Ctrl-C: only the folder's name is left to say
            _sum_up(plan, error)
    failed, arms = failed_arms(plan.folder) if plan.multirun else (0, 0)
    if failed and status < _INTERRUPTED:
        print(f"{failed} of {arms} runs failed: each says why in its error.txt", file=sys.stderr)
    print(plan.folder, flush=True)
    return status or exit_status(plan.folder, plan.multirun)


def _status(error: BaseException) -> int:
    if is_interrupt(error):
        return _INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    return 2 if isinstance(error, UserError) else 1


def _sum_up(plan: Plan, error: BaseException) -> None:
    """Say what has ended the command, note it for the arms that could not, and remake the report, which Hydra then leaves out."""
    if _status(error) >= _INTERRUPTED:
        print("stopped by a termination signal" if _status(error) == _TERMINATED else "interrupted", file=sys.stderr)
        _note_interrupted(plan)
    elif isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr)
    else:
        if plan.on_slurm:
            wait_for_jobs(plan.folder)
        _tell_failure(plan, error, killed=_note_arms(plan, _KILLED))
    if plan.multirun:
        _refresh_report(plan)


def _note_interrupted(plan: Plan) -> None:
    if not plan.on_slurm:
        _note_arms(plan, "interrupted")
    elif left := jobs_left(plan.folder):
        print(f"{left} of this sweep's jobs are still with Slurm and go on (scancel stops them)", file=sys.stderr)


def _note_arms(plan: Plan, line: str) -> list[str]:
    until = time.monotonic() + _GRACE
    while plan.multirun and working_arms(plan.folder) and time.monotonic() < until:
        time.sleep(0.1)
    return note_silent(plan.folder, line, plan.multirun)


def _tell_failure(plan: Plan, error: BaseException, killed: list[str]) -> None:
    """Tell why a launcher failed; its traceback goes into the folder. A sweep's folder gets no error.txt: that is a run's."""
    line = one_line("".join(traceback.format_exception_only(error)))
    reason = no_room(error) or ("a job ended before its time" if type(error).__name__ == "UncompletedJobError" else line)
    log = plan.folder / ERROR_LOG
    with suppress(OSError):
        write_text(log, "".join(traceback.format_exception(error)))
        if not plan.multirun:
            write_error(plan.folder, reason)
    more = f" (more: {log})" if log.is_file() and no_room(error) is None else ""
    said = f"{' and '.join(killed)}: killed from outside" if killed and no_room(error) is None else reason
    print(f"error: {said}{more}", file=sys.stderr)


def _refresh_report(plan: Plan) -> None:
    """Call the sweep's callbacks as Hydra does where nothing stops it; one that fails costs a line."""
    if not any(plan.folder.glob(f"*/{CONFIG}")):
        return
    config = plan.config.copy()
    with open_dict(config.hydra):
        config.hydra.sweep.dir = str(plan.folder)
        config.hydra.runtime.cwd = str(Path.cwd())
    for name, node in (config.hydra.get("callbacks") or {}).items():
        try:
            instantiate(node).on_multirun_end(config=config)
        except Exception as error:
            print(one_line(f"hydra.callbacks.{name} failed: {type(error).__name__}: {error}"), file=sys.stderr)
