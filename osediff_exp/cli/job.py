"""One run: the function Hydra calls for every arm, here or in a launcher's process."""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.types import RunMode
from hydra.utils import get_method
from omegaconf import DictConfig, read_write

from osediff_exp.cli.locks import hold
from osediff_exp.cli.messages import one_line
from osediff_exp.cli.records import CONFIG, ERROR_LOG, start_records, write_error, write_result
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.cli.sweeps import Earlier, FolderTakenError, earlier
from osediff_exp.errors import Incomplete, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

# A launcher's worker process knows this function only by its module's name: the import is what registers the resolvers there.
register_resolvers()


def job(config: DictConfig) -> None:
    """Run the configured task in Hydra's output folder and leave result.json, or error.txt (and error.log for a bug).

    A failure is left in the folder and not raised: a sweep goes on with its other arms, and its callbacks run at the end. Only a folder
    that belongs to another run stops everything.
    """
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    if process_rank() > 0:
        get_method(config.task.function)(config, run_dir)
        return
    try:
        _run_or_keep(config, run_dir)
    except FolderTakenError:
        raise
    except KeyboardInterrupt:
        write_error(run_dir, "interrupted")
        raise
    except (Exception, SystemExit) as error:
        if (mistake := _users_mistake(error)) is not None:
            write_error(run_dir, _tell(mistake, run_dir))
            return
        line = one_line("".join(traceback.format_exception_only(error)))
        _tell(f"{line} (traceback: {run_dir / ERROR_LOG})", run_dir)
        write_error(run_dir, line, traceback.format_exc())


def _users_mistake(error: BaseException) -> str | None:
    """Return the one line of a UserError, also where Hydra's ``instantiate`` or a loader's worker process has wrapped it."""
    while not isinstance(error, UserError):
        if not isinstance(error, InstantiationException) or error.__cause__ is None:
            return None
        error = error.__cause__
    # A data loader's worker sends its traceback along as text: the message is what follows the error's own name.
    return one_line(str(error).rpartition("errors.UserError: ")[2])


def process_rank() -> int:
    """Return this process's rank in distributed training, as torchrun, Lightning or Slurm tell it; 0 alone writes records."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def _run_or_keep(config: DictConfig, run_dir: Path) -> None:
    """Run; in a sweep, keep an arm that is finished and go on with one that was killed."""
    with hold(run_dir) as free:
        if not free:
            raise FolderTakenError(f"another process is running in {run_dir}: let it finish, or choose another folder")
        found = earlier(run_dir, config) if HydraConfig.get().mode == RunMode.MULTIRUN else Earlier.NOTHING
        if found is Earlier.RESULT:
            (run_dir / CONFIG).touch()  # it belongs to this sweep too
            print(f"{run_dir.name}: finished earlier, kept", flush=True)
            return
        if found is Earlier.CHECKPOINT and config.get("resume", "") is None:
            print(f"{run_dir.name}: goes on from its last checkpoint", flush=True)
            config.resume = "auto"
        _run(config, run_dir)


def _run(config: DictConfig, run_dir: Path) -> None:
    started = time.perf_counter()
    start_records(run_dir, config)
    unfinished: Incomplete | None = None
    with _command_of_this_run(run_dir):
        try:
            figures = get_method(config.task.function)(config, run_dir)
        except Incomplete as error:
            figures, unfinished = error.figures, error
    write_result(run_dir, task=config.task.name, seconds=time.perf_counter() - started, figures=figures)
    if unfinished is not None:
        raise unfinished


@contextmanager
def _command_of_this_run(run_dir: Path) -> Iterator[None]:
    """Make ``sys.argv`` the command of this arm alone.

    Lightning starts the other ranks of a multi-GPU run with this process's arguments: with a sweep's, each would start the sweep again.
    """
    overrides = HydraConfig.get().overrides
    kept = [text for text in overrides.hydra if not text.lstrip("+").startswith(("hydra.mode=", "hydra.run.dir=", "hydra.sweep.dir="))]
    before = sys.argv
    sys.argv = [before[0], *overrides.task, *kept, "hydra.mode=RUN"]
    try:
        with _run_dir_set(run_dir):
            yield
    finally:
        sys.argv = before


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
    print(f"error{name}: {line}", file=sys.stderr, flush=True)
    return line
