"""Putting a sweep's W&B report on the server, or its JSON beside the runs with the commands that publish it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osediff_exp.callbacks.wandb_record import WandbRecord, read_record, sync_command, unsent_folders
from osediff_exp.callbacks.wandb_server import within
from osediff_exp.errors import UserError
from osediff_exp.reporting.files import write_atomically

if TYPE_CHECKING:
    import wandb_workspaces.reports.v2 as wr

    from osediff_exp.reporting.comparison import Comparison

FILE = "wandb_report.json"


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
    by_arm = _records(comparison)
    records = [record for found in by_arm.values() for record in found]
    entity = next((record.entity for record in records if record.entity), None) or entity
    path = comparison.sweep_dir / FILE
    report = _built(comparison, records[0].project, entity, {arm: [record.id for record in found] for arm, found in by_arm.items()})
    earlier = _earlier(path)
    place, fault = _Place(earlier.get("id") or "", earlier.get("url")), ""
    spec = _spec(report)  # before publishing: one that hangs still holds the report
    if online:
        try:
            place = within(patience, lambda: _publish(report, entity, place.id))
        except Exception as error:  # a server and W&B's library can fail in any way; the runs and the JSON file are not concerned
            fault = (str(error).strip() or type(error).__name__).splitlines()[0]
    done = online and not fault
    commands = _commands(comparison, entity=entity, published=done)
    where = {"title": report.title, "project": records[0].project, "entity": entity, "id": place.id or None, "url": place.url}
    write_atomically(path, json.dumps({**where, "to_do": list(commands), "spec": spec}, indent=2) + "\n")
    return Written(path, place.url if done else None, fault, commands)


def _records(comparison: Comparison) -> dict[str, list[WandbRecord]]:
    """Return the W&B runs of each arm that has some."""
    found = {row.label: [read_record(run.folder) for run in row.runs] for row in comparison.arms}
    known = {arm: [record for record in records if record is not None and record.group] for arm, records in found.items()}
    if not any(known.values()):
        folders = " and ".join(f"'{path}'" for path in comparison.sources)
        raise UserError(f"no run in {folders} was logged with W&B as part of a sweep: train with logger.wandb.mode=offline (or online)")
    return {arm: records for arm, records in known.items() if records}


def _built(comparison: Comparison, project: str, entity: str | None, ids: dict[str, list[str]]) -> wr.Report:
    try:
        from osediff_exp.tasks.wandb_report.content import build_report
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("wandb_workspaces"):
            raise
        raise UserError("target=wandb needs the package wandb-workspaces: pip install 'osediff-exp[wandb-report]'") from None
    return build_report(comparison, project=project, entity=entity or "", ids=ids)


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


def _earlier(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _commands(comparison: Comparison, *, entity: str | None, published: bool) -> tuple[str, ...]:
    """Return what is left to do as commands that work in any folder and without an activated environment."""
    unsent = [path for row in comparison.arms for run in row.runs for path in unsent_folders(run.folder)]
    sync = [sync_command(unsent)] if unsent else []
    place = ["task=report", comparison.runs_argument, "target=wandb", "logger.wandb.mode=online"]
    whose = [f"logger.wandb.entity={entity}"] if entity else []
    publish = [shlex.join([sys.executable, "-m", "osediff_exp", *place, *whose])]
    return (*sync, *([] if published else publish))
