"""Start a W&B run: offline unless told otherwise or a key is there, and never in the way of a training."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from osediff_exp.callbacks.wandb_record import WandbRecord, chosen_mode, read_record, server_url, write_record
from osediff_exp.callbacks.wandb_run import WandbRun, first_line
from osediff_exp.callbacks.wandb_server import fault_of_server, remember_silence
from osediff_exp.errors import UserError, nearest

log = logging.getLogger(__name__)

Mode = Literal["auto", "online", "offline", "disabled"]
_LONGEST_TAG, _LONGEST_NAME = 64, 128  # W&B refuses longer ones
_OFFLINE_TIMEOUT = 60.0  # seconds: W&B's service process starts slowly on a busy machine


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
        remember_silence(server_url(), memory, first_line(fault))
    return first_line(fault)


def _start_offline(arguments: dict[str, Any]) -> WandbRun | None:
    """Start offline; a second attempt starts W&B's service process anew, which an earlier arm may have lost."""
    fault = ""
    for _ in range(2):
        try:
            return _start_once("offline", arguments, _OFFLINE_TIMEOUT)
        except Exception as error:
            fault = first_line(error)
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
