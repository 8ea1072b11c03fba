"""The folder of a run or sweep, made ready: earlier work set aside where the user asks for it, the lock held, old notes removed."""

from __future__ import annotations

import itertools
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from osediff_exp.cli.locks import LOCK, hold, is_held
from osediff_exp.cli.paths import existing
from osediff_exp.cli.records import CONFIG, ERROR, ERROR_LOG, RESULT
from osediff_exp.cli.sweeps import SWEEP, leaves, progress, write_sweep
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from osediff_exp.cli.preflight import Plan

_TRAININGS = ("train", "pretrain")
_OURS = (SWEEP, "multirun.yaml", CONFIG, RESULT, ERROR, ".hydra")


@contextmanager
def open_folder(plan: Plan) -> Iterator[None]:
    """Make the plan's folder and, for a sweep, hold it and note there what it is.

    Raises:
        UserError: the folder cannot be made or written, or somebody is at work in it.
    """
    with ExitStack() as held:
        try:
            _make_ready(plan, held)
        except OSError as error:
            key = "hydra.sweep.dir" if plan.multirun else "hydra.run.dir"
            raise UserError(f"cannot write into {plan.folder} ({error.strerror}): mend that, or choose another {key}") from error
        yield


def _make_ready(plan: Plan, held: ExitStack) -> None:
    folder = plan.folder
    if plan.fresh and any((folder / name).exists() for name in _OURS):
        print(f"{folder} held an earlier run, which is now {set_aside(folder, plan.arms)}", file=sys.stderr)
    if plan.sweep is None:
        keep_training(folder, plan.arms[0])
    folder.mkdir(parents=True, exist_ok=True)
    if plan.sweep is None:
        return
    if not held.enter_context(hold(folder)):
        raise UserError(f"another process is running the sweep in {folder}: let it finish, or choose another hydra.sweep.dir")
    if done := progress(folder)[0]:
        print(f"going on in {folder}: {done} of its runs are finished (fresh=true starts anew)", file=sys.stderr)
    for name in (ERROR, ERROR_LOG):  # of a launcher that failed: this start is another one
        (folder / name).unlink(missing_ok=True)
    write_sweep(folder, plan.sweep)


def keep_training(folder: Path, config: DictConfig) -> None:
    """Set a training aside that another one would replace, hours of work perhaps; a task of another kind may not go into its folder."""
    if not (folder / "checkpoints" / "last.ckpt").is_file() or config.get("resume") is not None:
        return
    if config.task.name not in _TRAININGS:
        raise UserError(f"{folder} holds a training, whose records this task would replace: choose another hydra.run.dir")
    print(f"{folder} held an earlier training, which is now {set_aside(folder, [config])} (resume=auto goes on with it)", file=sys.stderr)


def set_aside(folder: Path, configs: Sequence[DictConfig]) -> Path:
    """Rename ``folder`` to the first free of ``folder.1``, ``folder.2``, ... and return that name.

    Raises:
        UserError: somebody is at work in it, it is where this process works, or a run with one of ``configs`` reads from it.
        OSError: it cannot be renamed.
    """
    if any(is_held(path.parent) for path in [folder / LOCK, *folder.glob(f"*/{LOCK}")]):
        raise UserError(f"another process is at work in {folder}: let it finish, or choose another folder")
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(f"{folder} is the current folder, which cannot be moved: choose another")
    if key := next((key for config in configs for key in _reads_from(folder, config)), None):
        raise UserError(f"{folder} is what {key} reads from and cannot be moved: choose another")
    names = (folder.with_name(f"{folder.name}.{number}") for number in itertools.count(1))
    return folder.rename(next(name for name in names if not name.exists()))


def _reads_from(folder: Path, config: DictConfig) -> Iterator[str]:
    """Yield the keys whose values are paths that exist inside ``folder``."""
    own = OmegaConf.masked_copy(config, [str(name) for name in config if name != "hydra"])
    tree: Any = OmegaConf.to_container(own, resolve=True)
    for key, value in leaves(tree):
        for text in value if isinstance(value, list) else [value]:
            path = existing(text) if isinstance(text, str) and "/" in text else None
            if path is not None and path.resolve().is_relative_to(folder.resolve()):
                yield key
