"""Putting a sweep's W&B report on the server, or its JSON beside the runs with the commands that publish it."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar

from osediff_exp.callbacks.wandb_record import WandbRecord, read_record, unsent_folders
from osediff_exp.errors import UserError
from osediff_exp.reporting.commands import PROGRAM
from osediff_exp.reporting.files import write_atomically

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr

    from osediff_exp.reporting.comparison import Comparison

FILE = "wandb_report.json"
T = TypeVar("T")


@dataclass(frozen=True)
class _Place:
    """Where a report is on the server: its id ("" where it is not there) and its page."""

    id: str
    url: str | None


@dataclass(frozen=True)
class Written:
    """What became of a report.

    Attributes:
        path: its JSON file, written in any case.
        url: its page; None where it is not on a server.
        fault: why not; empty where nothing was tried or all went well.
        commands: what sends the runs and publishes the report, in order; empty where nothing is left to do.
    """

    path: Path
    url: str | None
    fault: str
    commands: tuple[str, ...]


def write_wandb_report(comparison: Comparison, *, entity: str | None, online: bool, patience: float) -> Written:
    """Build the report; publish it where ``online`` (a second time: update it), and write RUNS/wandb_report.json.

    Args:
        entity: where the report goes if the runs do not say where they went; None: the server's default.
        patience: seconds that publishing may take in all.

    Raises:
        UserError: the package wandb-workspaces is missing, or no run of the sweep was logged with W&B.
    """
    records = _records(comparison)
    entity = next((record.entity for record in records if record.entity), None) or entity
    path = comparison.sweep_dir / FILE
    report = _built(comparison, records[0].project, entity, sorted({record.group or "" for record in records}))
    earlier = _earlier(path)
    place, fault = _Place(earlier.get("id") or "", earlier.get("url")), ""
    spec = _spec(report)  # before publishing: one that hangs still holds the report
    if online:
        try:
            place = within(patience, lambda: _publish(report, entity, place.id))
        except Exception as error:  # a server and W&B's library can fail in any way; the runs and the JSON file are not concerned
            fault = (str(error).strip() or type(error).__name__).splitlines()[0]
    done = online and not fault
    commands = _commands(comparison, published=done)
    where = {"title": report.title, "project": records[0].project, "entity": entity, "id": place.id or None, "url": place.url}
    write_atomically(path, json.dumps({**where, "to_do": list(commands), "spec": spec}, indent=2) + "\n")
    return Written(path, place.url if done else None, fault, commands)


def _records(comparison: Comparison) -> list[WandbRecord]:
    found = [read_record(run.folder) for row in comparison.arms for run in row.runs]
    records = [record for record in found if record is not None and record.group]
    if not records:
        raise UserError(
            f"no run in '{comparison.sweep_dir}' was logged with W&B as part of a sweep: train with logger.wandb.mode=offline (or online)"
        )
    return records


def _built(comparison: Comparison, project: str, entity: str | None, groups: list[str]) -> wr.Report:
    try:
        from osediff_exp.tasks.wandb_report.content import build_report
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("wandb_workspaces"):
            raise
        raise UserError("target=wandb needs the package wandb-workspaces: pip install 'osediff-exp[wandb-report]'") from None
    return build_report(comparison, project=project, entity=entity or "", groups=groups)


def _publish(report: wr.Report, entity: str | None, known: str) -> _Place:
    """Save the report in the place of the ``known`` one, or as a new one where that is gone."""
    import wandb

    # W&B reports its own faults over the network, and holds a process that ends for 20 s if the server is silent.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    report.entity = entity or wandb.Api().default_entity or ""
    report.id = known
    try:
        report.save()
    except Exception:
        if not known:
            raise
        report.id = ""
        report.save()
    return _Place(report.id, str(report.url))


def _spec(report: wr.Report) -> Any:
    """Return the report as the server's plain data; the library has no public call for it."""
    return json.loads(report._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return what ``action`` returns, or raise what it raises; TimeoutError if it takes longer than ``seconds``."""
    outcome: list[tuple[T | None, BaseException | None]] = []

    def act() -> None:
        try:
            outcome.append((action(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = Thread(target=act, daemon=True)  # a daemon: what hangs must not keep the program alive
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def _earlier(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _commands(comparison: Comparison, *, published: bool) -> tuple[str, ...]:
    unsent = [str(path) for row in comparison.arms for run in row.runs for path in unsent_folders(run.folder)]
    sync = [shlex.join(["wandb", "sync", "--include-online", *unsent])] if unsent else []
    publish = shlex.join([*PROGRAM, "task=report", f"runs={comparison.sweep_dir}", "target=wandb", "logger.wandb.mode=online"])
    return (*sync, *([] if published else [publish]))
