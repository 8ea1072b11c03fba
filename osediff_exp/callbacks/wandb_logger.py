"""Weights & Biases: offline unless told otherwise or a key is there, and never in the way of a training."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from pytorch_lightning.loggers import Logger, WandbLogger

from osediff_exp.errors import UserError, nearest

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]


def wandb_logger(
    *,
    mode: Mode,
    project: str,
    entity: str | None,
    tags: list[str],
    init_timeout: float,
    folder: str,
    name: str | None = None,
    group: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Logger | None:
    """Return a started W&B logger, or None where W&B is disabled.

    Args:
        mode: ``auto`` is online where a key is found (environment or login), else offline.
        init_timeout: seconds after which a run that cannot reach the server goes on offline.
        folder: the run folder; W&B's files lie in its ``wandb/``.
        name, group, tags, settings (the whole configuration): of the W&B run; a sweep is a group, an arm a name.
    """
    if mode not in ("auto", "online", "offline", "disabled"):
        raise UserError(f"logger.wandb.mode={mode} is unknown.{nearest(mode, ['auto', 'online', 'offline', 'disabled'])}")
    if mode == "disabled":
        return None
    arguments = {"project": project, "entity": entity, "tags": list(tags), "name": name, "group": group, "config": settings, "dir": folder}
    if mode == "online" or (mode == "auto" and has_key()):
        try:
            return _start("online", init_timeout, arguments)
        except Exception as error:  # W&B's own errors are many; none of them may stop a training
            log.warning("W&B cannot be reached (%s): this run is logged offline; send it later with 'wandb sync'", _first_line(error))
    return _start("offline", init_timeout, arguments)


def has_key() -> bool:
    """Tell whether a W&B key is there, in the environment or by a login."""
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0]
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return bool(os.environ.get("WANDB_API_KEY")) or (netrc.is_file() and host in netrc.read_text())


def _start(mode: Literal["online", "offline"], init_timeout: float, arguments: dict[str, Any]) -> WandbLogger:
    import wandb

    run = wandb.init(mode=mode, settings=wandb.Settings(init_timeout=init_timeout, silent=True, console="off"), **arguments)
    return WandbLogger(experiment=run)


def log_pictures(loggers: list[Logger], pictures: list[tuple[str, Image.Image]], *, step: int) -> None:
    """Log pictures (name, picture) under ``val/pictures`` to the W&B loggers among ``loggers``."""
    import wandb

    for logger in loggers:
        if isinstance(logger, WandbLogger) and pictures:
            images = [wandb.Image(picture, caption=name) for name, picture in pictures]
            logger.experiment.log({"val/pictures": images, "trainer/global_step": step})


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
