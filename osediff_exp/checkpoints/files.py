"""Reading files that hold weights and nothing else, and writing files and folders whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from osediff_exp.errors import UserError

RECORD = "osediff.json"
"""The file that marks a folder as an export of this program and describes it."""


def read_pickle(path: Path) -> dict[str, Any]:
    """Return the dictionary of a ``torch.save`` file: tensors and plain values; code in it is refused, never run.

    Raises:
        UserError: if the file holds anything else, is damaged or is no such file.
    """
    try:
        # Mapped: optimizer states and other terms' weights are never read from disk.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is refused: it is damaged, or holds more than tensors and plain values ({_reason(error)})") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is no checkpoint, or is damaged ({_reason(error)}): give a run folder, a .ckpt or an osediff.pkl"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, no checkpoint: give a run folder, a .ckpt or an osediff.pkl")
    return content


def _reason(error: Exception) -> str:
    """Return what torch refused, without its advice to load the file unsafely."""
    text = str(error)
    refused = [line.strip() for line in text.splitlines() if "Unsupported" in line or "GLOBAL" in line]
    return (refused or text.strip().splitlines() or [type(error).__name__])[-1 if refused else 0][:160]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Raises:
        UserError: if the file is absent or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}): export the folder again") from error


def read_record(folder: Path) -> dict[str, Any]:
    """Return a folder's ``osediff.json``; UserError if it is damaged."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / RECORD} cannot be read ({error}): export the folder again") from error
    if not isinstance(record, dict):
        raise UserError(f"{folder / RECORD} is no JSON object: export the folder again")
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write ``osediff.json``."""
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file under a temporary name beside ``path``, then put it in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as unfinished:
        write(Path(unfinished) / path.name)
        os.replace(Path(unfinished) / path.name, path)  # noqa: PTH105


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary folder beside ``folder``, then put it in place; an earlier export there is replaced.

    Raises:
        UserError: before anything is written, if ``folder`` is a file or holds something that is no export of this program.
    """
    check_replaceable(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as unfinished:
        fresh, old = Path(unfinished) / "fresh", Path(unfinished) / "old"
        fresh.mkdir()
        write(fresh)
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
        shutil.rmtree(old, ignore_errors=True)


def check_replaceable(folder: Path) -> None:
    """Raise UserError where writing the folder would destroy something that is no export of this program."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is a file: give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RECORD).is_file():
        raise UserError(f"output={folder} holds other files (no {RECORD} among them): give a new or empty folder")
