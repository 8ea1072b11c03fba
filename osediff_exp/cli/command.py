"""The whole command: read, check, run through Hydra, say where the results are."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from osediff_exp import __version__
from osediff_exp.cli.arguments import Arguments, parse_arguments
from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.help import help_text
from osediff_exp.cli.stops import is_full_disk
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def run_command(argv: list[str]) -> int:
    """Run the command line ``argv`` (without the program's name) and return the exit status.

    0: all is done. 1: a run failed, or did part of its job: a bug, a full disk, a lost process, photos that cannot be read; of a sweep, any
    of its runs for any reason. 2: the user's mistake: nothing was started, or a single run ended with it. 130, 143: Ctrl-C, SIGTERM.
    """
    try:
        return _run(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1 if is_full_disk(error) else 2
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
    from osediff_exp.cli.ending import run_to_the_end
    from osediff_exp.cli.folder import open_folder
    from osediff_exp.cli.machine import check_machine
    from osediff_exp.cli.preflight import make_plan
    from osediff_exp.cli.ranks import folder_told, process_rank
    from osediff_exp.cli.refused import refusals

    plan = make_plan(conf, arguments)
    if arguments.flags:
        _call_hydra(conf, [*arguments.flags, *plan.overrides])
        return 0
    if process_rank() > 0:
        reports = [f"~hydra.callbacks.{name}" for name in plan.config.hydra.get("callbacks") or {}]  # are rank 0's, of finished arms
        _call_hydra(conf, ["-m"] * arguments.multirun + plan.overrides + reports * plan.multirun)
        return 0
    for arm in plan.arms:
        check_machine(plan.config, arm)
    if plan.on_slurm:
        from osediff_exp.cli.slurm_launcher import use_it

        use_it()
    if plan.multirun and (reasons := refusals(plan.arms)):
        print(f"left out: {'; '.join(reasons)}", file=sys.stderr)
    with open_folder(plan), folder_told(plan.folder):
        return run_to_the_end(plan, partial(_call_hydra, conf, ["-m"] * arguments.multirun + plan.overrides))


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
