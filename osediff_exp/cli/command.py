"""The whole command: read, check, run through Hydra, say where the results are."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

from osediff_exp import __version__
from osediff_exp.cli.arguments import Arguments, parse_arguments
from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.help import help_text
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from osediff_exp.cli.preflight import Plan
    from osediff_exp.cli.sweeps import Sweep


def run_command(argv: list[str]) -> int:
    """Run the command line ``argv`` (without the program's name) and return the exit status."""
    try:
        return _run(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(argv: list[str]) -> int:
    arguments = parse_arguments(argv)
    if arguments.version:
        print(__version__)
        return 0
    conf = conf_dir(arguments.config_path)
    if arguments.help:
        print(help_text([conf, *arguments.extra_dirs]))
        return 0
    return _launch(conf, arguments)


def _launch(conf: Path, arguments: Arguments) -> int:
    # Hydra is imported here, not above: --help and --version need not wait for it.
    from osediff_exp.cli.preflight import make_plan
    from osediff_exp.cli.ranks import process_rank

    plan = make_plan(conf, arguments)
    if arguments.flags or process_rank() > 0:
        _call_hydra(conf, [*arguments.flags, *plan.overrides])
        return 0
    if plan.sweep is not None:
        with _sweep_folder(plan.folder, plan.sweep):
            return _run_all(conf, plan, arguments.multirun)
    return _run_all(conf, plan, arguments.multirun)


@contextmanager
def _sweep_folder(folder: Path, sweep: Sweep) -> Iterator[None]:
    """Hold the sweep's folder and note there what it is; say so where an earlier call left arms that are kept."""
    from osediff_exp.cli.locks import hold
    from osediff_exp.cli.sweeps import progress, write_sweep

    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder) as free:
        if not free:
            raise UserError(f"another process is running the sweep in {folder}: let it finish, or choose another hydra.sweep.dir")
        if done := progress(folder)[0]:
            print(f"going on in {folder}: {done} of its runs are finished (fresh=true starts anew)", file=sys.stderr)
        write_sweep(folder, sweep)
        yield


def _run_all(conf: Path, plan: Plan, multirun: bool) -> int:
    from osediff_exp.cli.messages import one_line
    from osediff_exp.cli.records import ERROR_LOG, exit_status, failed_arms, note_killed, write_error
    from osediff_exp.cli.slurm import wait_for_jobs

    status = 0
    try:
        _call_hydra(conf, ["-m"] * multirun + plan.overrides)
    except UserError:
        raise
    except Exception as error:  # a launcher failed: the runs themselves keep their failures in their folders
        line, log = one_line("".join(traceback.format_exception_only(error))), traceback.format_exc()
        if plan.on_slurm:
            wait_for_jobs(plan.folder)
        write_error(plan.folder, line, log)
        killed = note_killed(plan.folder) if plan.multirun else []
        ended = "a job ended before its time" if type(error).__name__ == "UncompletedJobError" else line
        said = f"{' and '.join(killed)}: killed from outside" if killed else ended
        print(f"error: {said} (more: {plan.folder / ERROR_LOG})", file=sys.stderr)
        status = 1
    if plan.multirun and (failed := failed_arms(plan.folder))[0]:
        print(f"{failed[0]} of {failed[1]} runs failed: each says why in its error.txt", file=sys.stderr)
    print(plan.folder, flush=True)
    return status or exit_status(plan.folder, plan.multirun)


def _call_hydra(conf: Path, argv: list[str]) -> None:
    import hydra

    from osediff_exp.cli.job import job

    with _process(argv):
        hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(job)()


@contextmanager
def _process(argv: list[str]) -> Iterator[None]:
    """Set what Hydra reads from the process: its arguments, and that exceptions come through instead of being printed."""
    arguments, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [arguments[0], *argv], "1"
    try:
        yield
    finally:
        sys.argv = arguments
        os.environ.pop("HYDRA_FULL_ERROR")
        if full_error is not None:
            os.environ["HYDRA_FULL_ERROR"] = full_error
