"""One run: the function Hydra calls for every arm, here or in a launcher's process."""

from __future__ import annotations

import signal
import sys
import time
import traceback
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig, read_write

from osediff_exp.cli.locks import hold
from osediff_exp.cli.messages import one_line
from osediff_exp.cli.ranks import (
    Decision,
    end_as_failed,
    environment_of_one_run,
    launch_id,
    process_rank,
    rank_zeros_decision,
    tell_ranks,
)
from osediff_exp.cli.records import ERROR, ERROR_LOG, start_records, write_error, write_result, write_skipped
from osediff_exp.cli.refused import refusal
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.cli.stops import is_interrupt, is_termination, no_room, requeued_by_slurm, what_stopped_it
from osediff_exp.cli.sweeps import Earlier, FolderTakenError, earlier, keep
from osediff_exp.errors import Incomplete, UserError
from osediff_exp.picture_header import set_max_megapixels

if TYPE_CHECKING:
    from collections.abc import Iterator

# A launcher's worker process knows this function only by its module's name: the import is what registers the resolvers there.
register_resolvers()


def job(config: DictConfig) -> None:
    """Run the configured task in Hydra's output folder and leave result.json, or error.txt (and error.log for a bug).

    A failure is left in the folder and not raised: a sweep goes on with its other arms, and its callbacks run at the end. Only a folder
    that belongs to another run, and a signal that ends the whole process, stop everything.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    run = _run_or_keep if process_rank() == 0 else _follow
    with environment_of_one_run():
        if (largest := config.get("max_megapixels")) is not None:
            set_max_megapixels(largest)
        try:
            run(config, run_dir)
        except FolderTakenError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            with suppress(OSError):  # a full disk: the line is on the screen
                _note(error, run_dir)
            _raise_what_ends_the_process(error)
            end_as_failed()


def _note(error: BaseException, run_dir: Path) -> None:
    """Write error.txt, and error.log for a bug. Of several ranks the first has the word: the others fail because it did."""
    if (run_dir / ERROR).is_file():
        return
    if is_interrupt(error):
        write_error(run_dir, "interrupted")  # the command itself says so
    elif (line := what_stopped_it(error, in_sweep=HydraConfig.get().mode == RunMode.MULTIRUN) or no_room(error)) is not None:
        write_error(run_dir, _tell(line, run_dir))
    elif (mistake := _users_mistake(error)) is not None:
        write_error(run_dir, _tell(mistake, run_dir), mistake=not isinstance(error, Incomplete))
    else:
        line = one_line("".join(traceback.format_exception_only(error)))
        _tell(f"{line} (traceback: {run_dir / ERROR_LOG})", run_dir)
        write_error(run_dir, line, "".join(traceback.format_exception(error)))


def _raise_what_ends_the_process(error: BaseException) -> None:
    if is_interrupt(error):
        raise KeyboardInterrupt from error
    if is_termination(error):
        raise SystemExit(128 + signal.SIGTERM) from error
    if requeued_by_slurm(error):
        raise error


def _users_mistake(error: BaseException) -> str | None:
    """Return the one line of a UserError, also where Hydra's ``instantiate`` or a loader's worker process has wrapped it."""
    while not isinstance(error, UserError):
        if not isinstance(error, InstantiationException) or error.__cause__ is None:
            return None
        error = error.__cause__
    # A data loader's worker sends its traceback along as text: the message is what follows the error's own name.
    return one_line(str(error).rpartition("errors.UserError: ")[2])


def _run_or_keep(config: DictConfig, run_dir: Path) -> None:
    """Run; in a sweep, keep an arm that is finished, leave out one that cannot be, and go on with one that was killed."""
    with hold(run_dir) as free:
        try:
            decision = _decide(config, run_dir, free)
        except FolderTakenError:
            tell_ranks(run_dir, Decision.REFUSE)
            raise
        if decision is Decision.KEEP:
            keep(run_dir)
            tell_ranks(run_dir, decision)
            return
        if HydraConfig.get().mode == RunMode.MULTIRUN and (reason := refusal(config)) is not None:
            write_skipped(run_dir, config, reason)
            tell_ranks(run_dir, Decision.KEEP)
            return
        if decision is Decision.GO_ON:
            print(f"{run_dir.name}: goes on from its last checkpoint", flush=True)
            config.resume = "auto"
        _run(config, run_dir, decision)


def _decide(config: DictConfig, run_dir: Path, free: bool) -> Decision:
    if not free:
        raise FolderTakenError(f"another process is running in {run_dir}: let it finish, or choose another folder")
    found = earlier(run_dir, config) if HydraConfig.get().mode == RunMode.MULTIRUN else Earlier.NOTHING
    if found is Earlier.RESULT:
        return Decision.KEEP
    return Decision.GO_ON if found is Earlier.CHECKPOINT and config.get("resume", "") is None else Decision.START


def _follow(config: DictConfig, run_dir: Path) -> None:
    """Work as a rank above 0: what rank 0 works on, and as it does. Ranks that Lightning started are told by their arguments."""
    if HydraConfig.get().mode == RunMode.MULTIRUN and launch_id() is not None:
        decision = rank_zeros_decision(run_dir)
        if decision in (Decision.KEEP, Decision.REFUSE):
            return
        if decision is Decision.GO_ON:
            config.resume = "auto"
    with suppress(Incomplete):  # rank 0 tells
        get_method(config.task.function)(config, run_dir)


def _run(config: DictConfig, run_dir: Path, decision: Decision) -> None:
    started = time.perf_counter()
    start_records(run_dir, config)
    tell_ranks(run_dir, decision)  # now that what an earlier call left is gone: an error.txt is from this one
    unfinished: Incomplete | None = None
    with _command_of_this_run(run_dir, ["resume=auto"] * (decision is Decision.GO_ON)):
        try:
            figures = get_method(config.task.function)(config, run_dir)
        except Incomplete as error:
            figures, unfinished = error.figures, error
    write_result(run_dir, task=config.task.name, seconds=time.perf_counter() - started, figures=figures)
    if unfinished is not None:
        raise unfinished


@contextmanager
def _command_of_this_run(run_dir: Path, more: list[str]) -> Iterator[None]:
    """Make ``sys.argv`` the command of this arm alone, with ``more`` overrides.

    Lightning starts the other ranks of a multi-GPU run with this process's arguments: with a sweep's, each would start the sweep again.
    """
    overrides = HydraConfig.get().overrides
    kept = [text for text in overrides.hydra if not text.lstrip("+").startswith(("hydra.mode=", "hydra.run.dir=", "hydra.sweep.dir="))]
    before = sys.argv
    sys.argv = [before[0], *_tree(), *overrides.task, *more, *kept, "hydra.mode=RUN"]
    try:
        with _run_dir_set(run_dir):
            yield
    finally:
        sys.argv = before


def _tree() -> list[str]:
    """Return the flag that names the configuration tree of this run: it may be another than the package's."""
    found = next((source.path for source in HydraConfig.get().runtime.config_sources if source.provider == "main"), None)
    return [] if found is None else ["--config-path", str(found)]


@contextmanager
def _run_dir_set(run_dir: Path) -> Iterator[None]:
    """Let ``hydra.run.dir`` name this arm's folder, which is where Lightning sends the other ranks."""
    whole: Any = HydraConfig.instance().cfg
    before = whole.hydra.run.dir
    with read_write(whole.hydra):
        whole.hydra.run.dir = str(run_dir)
    try:
        yield
    finally:
        with read_write(whole.hydra):
            whole.hydra.run.dir = before


def _tell(line: str, run_dir: Path) -> str:
    name = f" in {run_dir.name}" if HydraConfig.get().mode == RunMode.MULTIRUN else ""
    name += f" (rank {rank})" if (rank := process_rank()) else ""
    print(f"error{name}: {line}", file=sys.stderr, flush=True)
    return line
