"""Weights & Biases: offline unless told otherwise or a key is there, and never in the way of a training."""

from __future__ import annotations

import logging
import os
import secrets
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image
from pytorch_lightning.loggers import Logger

from osediff_exp.callbacks.wandb_history import pictures_until, rows_until
from osediff_exp.callbacks.wandb_record import WandbRecord, chosen_mode, read_record, server_url, sync_command, write_record
from osediff_exp.callbacks.wandb_server import fault_of_server, remember_silence
from osediff_exp.errors import UserError, nearest

if TYPE_CHECKING:
    from wandb import Run

__all__ = ["WandbRun", "closed_as_failed", "log_pictures", "wandb_logger"]

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]
STEP = "trainer/global_step"  # the key under which Lightning, and so most projects, logs the optimizer step
_LONGEST_TAG, _LONGEST_NAME = 64, 128  # W&B refuses longer ones
_OFFLINE_TIMEOUT = 60.0  # seconds: W&B's service process starts slowly on a busy machine


class WandbRun(Logger):
    """A started W&B run. The first call that fails ends its use: the training goes on without it.

    W&B's own step counts calls; the optimizer step is the key ``trainer/global_step``, which every plot takes as its axis.

    Args:
        run: as ``wandb.init`` returns it.
        folder: the run folder, whose ``wandb/record.json`` says what became of the run.
        record: what stands there.
    """

    def __init__(self, run: Run, folder: Path, record: WandbRecord) -> None:
        super().__init__()
        self._run: Run | None = run
        self._folder, self._record = folder, record
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return self._record.id

    @property
    def sync_command(self) -> str:
        """The command that sends the run where it was logged offline."""
        return sync_command([self._folder / "wandb" / self._record.files])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures under the keys of metrics.csv."""
        self._try(lambda run: run.log({**metrics, STEP: step or 0}))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the run started with the whole configuration."""

    def log_images(self, pictures: list[tuple[str, Image.Image]], *, step: int) -> None:
        """Log pictures (name, picture) under ``val/pictures``."""
        import wandb

        names = tuple(name for name, _ in pictures)
        if self._run is not None and names != self._record.pictures:
            self._record = replace(self._record, pictures=names)
            write_record(self._folder, self._record)
        # Pictures are given directly: those inside a W&B Table would be kept outside the run folder.
        self._try(lambda run: run.log({"val/pictures": [wandb.Image(picture, caption=name) for name, picture in pictures], STEP: step}))

    def replay(self, step: int, pictures: Iterable[str]) -> None:
        """Log what the run folder holds of the steps up to ``step``; ``pictures`` names those that earlier starts have logged."""
        for number, figures in rows_until(self._folder, step):
            self.log_metrics(figures, number)
        for number, shown in pictures_until(self._folder, step, tuple(pictures)):
            self.log_images(shown, step=number)

    def finish(self, figures: Mapping[str, Any], *, exit_code: int = 0) -> None:
        """End the run: ``figures`` (those of result.json) become its summary. Takes ``finish_timeout`` seconds at most."""
        self._try(lambda run: run.summary.update({key: value for key, value in figures.items() if value is not None}))
        self._try(lambda run: run.finish(exit_code=exit_code))
        if self._run is not None:
            self._record = replace(self._record, uploaded=not self._run.offline)
            write_record(self._folder, self._record)
        self._run = None

    def finalize(self, status: str) -> None:
        """End the run of a training that failed; Lightning also calls this after each successful fit and validation."""
        if status != "success":
            self.finish({}, exit_code=1)

    def _try(self, action: Callable[[Run], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # W&B's own errors are many; none of them may stop a training
            self._run = None
            fault, command = _first_line(error), self.sync_command
            log.warning("W&B has failed (%s): the run goes on without it; send what is there later: %s", fault, command)


def wandb_logger(
    *,
    mode: Mode,
    project: str,
    entity: str | None,
    tags: list[str],
    init_timeout: float,
    folder: str,
    finish_timeout: float = 60.0,
    sweep_folder: str | None = None,
    resume_step: int = 0,
    name: str | None = None,
    group: str | None = None,
    settings: dict[str, Any] | None = None,
) -> WandbRun | None:
    """Return a started W&B run, or None where W&B is disabled or cannot even write to the disk.

    Args:
        mode: ``auto`` is what WANDB_MODE says, else online where a key is found (environment or login), else offline.
        init_timeout: seconds after which a server that answers, but starts no run, is given up and the run goes on offline.
        finish_timeout: seconds that the end of a run waits for a slow or lost server; the rest is sent with ``wandb sync``.
        folder: the run folder; W&B's files lie in its ``wandb/``. A run that this folder has had before is replaced, under the same id.
        sweep_folder: where a silent server is remembered for the other arms; None: in ``folder``.
        resume_step: optimizer steps behind the checkpoint from which training goes on: what the folder holds of them is logged anew.
        name, group, tags, settings (the whole configuration): of the W&B run; a sweep is a group, an arm a name.
    """
    if mode not in ("auto", "online", "offline", "disabled"):
        raise UserError(f"logger.wandb.mode={mode} is unknown.{nearest(mode, ['auto', 'online', 'offline', 'disabled'])}")
    chosen = chosen_mode(mode)
    if chosen == "disabled":
        return None
    # W&B reports its own faults over the network, and holds a process that ends for 20 s if the server is silent.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    earlier = read_record(Path(folder))
    arguments = {
        "project": project,
        "entity": entity,
        "tags": list(dict.fromkeys(_short(tag, _LONGEST_TAG) for tag in tags if tag)),
        "name": _short(name, _LONGEST_NAME) if name else None,
        "group": _short(group, _LONGEST_NAME) if group else None,
        "config": settings,
        "dir": folder,
        "id": earlier.id if earlier is not None else secrets.token_hex(4),
        "reinit": "finish_previous",  # else an arm would log into the run that an arm before it, stopped by a mistake, left open
        "settings": {"finish_timeout": finish_timeout, "finish_timeout_raises": True, "silent": True, "console": "off"},
    }
    run = _start(arguments, init_timeout, Path(sweep_folder or folder)) if chosen == "online" else _start_offline(arguments)
    if run is not None and resume_step > 0:
        run.replay(resume_step, earlier.pictures if earlier is not None else ())
    return run


def log_pictures(loggers: list[Logger], pictures: list[tuple[str, Image.Image]], *, step: int) -> None:
    """Log pictures (name, picture) under ``val/pictures`` to the W&B runs among ``loggers``."""
    for logger in loggers:
        if isinstance(logger, WandbRun) and pictures:
            logger.log_images(pictures, step=step)


@contextmanager
def closed_as_failed(loggers: Iterable[Logger]) -> Iterator[None]:
    """Close the W&B runs among ``loggers`` as failed if the block ends with an error: Lightning does so for errors inside fit only."""
    try:
        yield
    except BaseException:
        for logger in loggers:
            if isinstance(logger, WandbRun):
                logger.finish({}, exit_code=1)
        raise


def _start(arguments: dict[str, Any], init_timeout: float, memory: Path) -> WandbRun | None:
    """Start online, else offline with a word on how to send the run later."""
    fault = fault_of_server(server_url(), memory) or _try_online(arguments, init_timeout, memory)
    if isinstance(fault, WandbRun):
        return fault
    run = _start_offline(arguments)
    if run is not None:
        log.warning("W&B cannot be reached (%s): this run is logged offline; send it later: %s", fault, run.sync_command)
    return run


def _try_online(arguments: dict[str, Any], init_timeout: float, memory: Path) -> WandbRun | str:
    """Return the started run, or why there is none; a run id that W&B refuses, because its run was deleted there, is replaced once."""
    from wandb.errors import AuthenticationError, CommError

    try:
        return _start_once("online", arguments, init_timeout)
    except Exception as error:  # W&B's own errors are many; none of them may stop a training
        fault = error
    _end_service()
    if "previously created and deleted" in str(fault):
        arguments["id"] = secrets.token_hex(4)
        try:
            return _start_once("online", arguments, init_timeout)
        except Exception as error:
            fault = error
        _end_service()
    if isinstance(fault, CommError) and not isinstance(fault, AuthenticationError):
        remember_silence(server_url(), memory, _first_line(fault))
    return _first_line(fault)


def _start_offline(arguments: dict[str, Any]) -> WandbRun | None:
    """Start offline; a second attempt starts W&B's service process anew, which an earlier arm may have lost."""
    fault = ""
    for _ in range(2):
        try:
            return _start_once("offline", arguments, _OFFLINE_TIMEOUT)
        except Exception as error:
            fault = _first_line(error)
        _end_service()
    log.warning("W&B cannot start (%s): this run is not logged there", fault)
    return None


def _end_service() -> None:
    import wandb

    with suppress(Exception):
        wandb.teardown(exit_code=0)  # a stuck attempt holds the run's id


def _start_once(mode: Literal["online", "offline"], arguments: dict[str, Any], init_timeout: float) -> WandbRun:
    import wandb

    # Not resume="allow": a start replaces what W&B has under its id, and a training that goes on logs its earlier steps anew.
    folder = Path(arguments["dir"])
    run = wandb.init(mode=mode, **arguments | {"settings": arguments["settings"] | {"init_timeout": init_timeout}})
    record = WandbRecord(
        id=run.id,
        project=run.project,
        entity=arguments["entity"],
        group=arguments["group"],
        url=run.url if mode == "online" else None,
        files=Path(run.dir).parent.name,
    )
    write_record(folder, record)
    return WandbRun(run, folder, record)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
