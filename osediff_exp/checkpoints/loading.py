"""One function that reads every kind of checkpoint: ours, the released osediff.pkl, and what task=export writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from osediff_exp.checkpoints.base import Call, Format, Loaded
from osediff_exp.checkpoints.files import RECORD, read_pickle, read_record
from osediff_exp.checkpoints.lora_folder import load_lora_folder
from osediff_exp.checkpoints.merged import load_merged_folder
from osediff_exp.checkpoints.named import checkpoint_path
from osediff_exp.checkpoints.own import is_own, load_own, recorded
from osediff_exp.checkpoints.released import is_released, load_released
from osediff_exp.checkpoints.versions import check_format
from osediff_exp.checkpoints.weights_folder import load_weights_folder
from osediff_exp.errors import UserError, nearest
from osediff_exp.models.backbone import Backbone

__all__ = ["Format", "Loaded", "load_checkpoint"]

_KINDS = "a run folder, a .ckpt, an osediff.pkl or a folder that task=export wrote"


def load_checkpoint(
    path: str | Path,
    *,
    settings: Mapping[str, Any] | None = None,
    backbone: Backbone | None = None,
    sources: list[str] | None = None,
    packages: Sequence[str] = (),
    prompt: Mapping[str, Any] | None = None,
    average: bool = True,
) -> Loaded:
    """Load a checkpoint of any kind; no code in it is ever run, and of code that it names only this package's and that of ``packages``.

    Args:
        path: ``embedded`` or ``embedded:start`` (the package's own), a run folder (its ``checkpoints/last.ckpt``), a ``.ckpt`` of ours,
            an ``osediff.pkl``, or a LoRA or merged folder that task=export wrote.
        settings: a configuration as plain data, for files that carry none (``osediff.pkl``).
        backbone: used in place of loading one; must be the checkpoint's. A merged folder is its own backbone and uses no other.
        sources: where the backbone is looked for, in place of the configuration's ``backbone.loader.sources``.
        packages: packages or modules of your own whose generators and prompt extractors the checkpoint may name: they are imported.
        prompt: a prompt's configuration as plain data (``extractor``, ``words``, ...), in place of the checkpoint's.
        average: take the moving average of the weights, as validation did, where the checkpoint has one.

    Raises:
        UserError: one line, if the file is none of these, is damaged, holds code, or does not fit its backbone.
    """
    found = _find(checkpoint_path(path))
    call = Call(backbone=backbone, sources=sources, packages=tuple(packages), prompt=prompt)
    if found.is_dir():
        return _load_folder(found, call)
    content = read_pickle(found)
    if is_own(content):
        return load_own(found, content, settings=settings, call=call, average=average)
    if is_released(content):
        return load_released(found, content, settings=settings, call=call)
    raise UserError(f"{found} is no checkpoint of a known kind: give {_KINDS}")


def carries_configuration(path: str | Path) -> bool:
    """Tell whether a checkpoint says by itself what it is of, so that ``settings`` are not asked: all kinds do but ``osediff.pkl``.

    Raises:
        UserError: the file is not there, or damaged.
    """
    return configuration_of(path) is not None


def configuration_of(path: str | Path) -> dict[str, Any] | None:
    """Return the configuration that a checkpoint of any kind carries, as plain data; None for ``osediff.pkl``. Nothing is built.

    Raises:
        UserError: the file is not there, or damaged.
    """
    found = _find(checkpoint_path(path))
    if found.is_dir():
        return dict(read_record(found).get("config") or {})
    content = read_pickle(found)
    return recorded(content, found) if is_own(content) else None


def _find(path: Path) -> Path:
    """Return a run folder's last checkpoint, or the path itself where it is a file or an exported folder."""
    if path.is_file() or (path / RECORD).is_file():
        return path
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"checkpoint {path}: there is no such file or folder.{nearest(path.name, siblings)}")
    for name in ("checkpoints/last.ckpt", "last.ckpt"):
        if (path / name).is_file():
            return path / name
    raise UserError(f"checkpoint {path}: the folder has neither checkpoints/last.ckpt nor {RECORD}; give {_KINDS}")


def _load_folder(folder: Path, call: Call) -> Loaded:
    record = read_record(folder)
    check_format(record, str(folder))
    if absent := {"kind", "config", "backbone", "steps"} - record.keys():
        raise UserError(f"{folder / RECORD} lacks '{min(absent)}': export the folder again")
    if record["kind"] == "lora":
        return load_lora_folder(folder, record, call)
    if record["kind"] == "merged":
        return load_merged_folder(folder, record, call)
    if record["kind"] == "weights":
        return load_weights_folder(folder, record, call)
    raise UserError(f"{folder / RECORD} is of an unknown kind '{record['kind']}': export the folder again")
