"""Weights & Biases: offline unless told otherwise or a key is there, and never in the way of a training."""

from __future__ import annotations

import logging
import os
import secrets
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from PIL import Image
from pytorch_lightning.loggers import Logger

from osediff_exp.callbacks.wandb_record import WandbRecord, chosen_mode, read_record, write_record
from osediff_exp.errors import UserError, nearest

if TYPE_CHECKING:
    from wandb import Run

__all__ = ["WandbRun", "log_pictures", "wandb_logger"]

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]
STEP = "trainer/global_step"  # the key under which Lightning, and so most projects, logs the optimizer step
_LONGEST_TAG, _LONGEST_NAME = 64, 128  # W&B refuses longer ones


class WandbRun(Logger):
    """A started W&B run. The first call that fails ends its use: the training goes on without it.

    W&B's own step counts calls; the optimizer step is the key ``trainer/global_step``, which every plot takes as its axis. So a
    resumed training, which logs some steps a second time, loses nothing.

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

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures under the keys of metrics.csv."""
        self._try(lambda run: run.log({**metrics, STEP: step or 0}))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the run started with the whole configuration."""

    def log_images(self, pictures: list[tuple[str, Image.Image]], *, step: int) -> None:
        """Log pictures (name, picture) under ``val/pictures``."""
        import wandb

        # Pictures are given directly: those inside a W&B Table would be kept outside the run folder.
        self._try(lambda run: run.log({"val/pictures": [wandb.Image(picture, caption=name) for name, picture in pictures], STEP: step}))

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
            log.warning("W&B has failed (%s): the run goes on without it; send what is there later with 'wandb sync'", _first_line(error))


def wandb_logger(
    *,
    mode: Mode,
    project: str,
    entity: str | None,
    tags: list[str],
    init_timeout: float,
    folder: str,
    finish_timeout: float = 60.0,
    resumed: bool = False,
    name: str | None = None,
    group: str | None = None,
    settings: dict[str, Any] | None = None,
) -> WandbRun | None:
    """Return a started W&B run, or None where W&B is disabled or cannot even write to the disk.

    Args:
        mode: ``auto`` is what WANDB_MODE says, else online where a key is found (environment or login), else offline.
        init_timeout: seconds after which a run that cannot reach the server goes on offline.
        finish_timeout: seconds that the end of a run waits for a slow or lost server; the rest is sent with ``wandb sync``.
        folder: the run folder; W&B's files lie in its ``wandb/``.
        resumed: go on with the W&B run that the folder remembers, if it does.
        name, group, tags, settings (the whole configuration): of the W&B run; a sweep is a group, an arm a name.
    """
    if mode not in ("auto", "online", "offline", "disabled"):
        raise UserError(f"logger.wandb.mode={mode} is unknown.{nearest(mode, ['auto', 'online', 'offline', 'disabled'])}")
    chosen = chosen_mode(mode)
    if chosen == "disabled":
        return None
    # W&B reports its own faults over the network, and holds a process that ends for 20 s if the server is silent.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    earlier = read_record(Path(folder)) if resumed else None
    timeouts = {"init_timeout": init_timeout, "finish_timeout": finish_timeout, "finish_timeout_raises": True}
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
        "settings": timeouts | {"silent": True, "console": "off"},
    }
    return _start(chosen == "online", arguments)


def log_pictures(loggers: list[Logger], pictures: list[tuple[str, Image.Image]], *, step: int) -> None:
    """Log pictures (name, picture) under ``val/pictures`` to the W&B runs among ``loggers``."""
    for logger in loggers:
        if isinstance(logger, WandbRun) and pictures:
            logger.log_images(pictures, step=step)


def _start(online: bool, arguments: dict[str, Any]) -> WandbRun | None:
    """Start online, else offline; a second offline attempt starts W&B's service process anew, which an earlier arm may have lost."""
    import wandb

    for mode in ["online", "offline", "offline"] if online else ["offline", "offline"]:
        try:
            return _start_once(mode == "online", arguments)
        except Exception as error:  # W&B's own errors are many; none of them may stop a training
            fault = _first_line(error)
        if mode == "online":
            log.warning("W&B cannot be reached (%s): this run is logged offline; send it later with 'wandb sync'", fault)
        with suppress(Exception):
            wandb.teardown(exit_code=0)  # a stuck attempt holds the run's id
    log.warning("W&B cannot start (%s): this run is not logged there", fault)
    return None


def _start_once(online: bool, arguments: dict[str, Any]) -> WandbRun:
    import wandb

    folder = Path(arguments["dir"])
    # Online, "allow" lets a resumed training go on with its run; offline, `wandb sync` joins the parts that share an id.
    run = wandb.init(mode="online", resume="allow", **arguments) if online else wandb.init(mode="offline", **arguments)
    url = run.url if online else None
    record = WandbRecord(id=run.id, project=run.project, entity=arguments["entity"], group=arguments["group"], url=url)
    write_record(folder, record)
    return WandbRun(run, folder, record)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
