"""Reading files that hold weights and nothing else, and writing files and folders whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from osediff_exp.errors import UserError

FILES = "files"
"""In a folder's record: the files that were written with it."""
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
    """Let ``write`` make a file under a temporary name beside ``path``, then put it in place.

    Raises:
        UserError: before anything is written, if nothing can be written beside ``path``.
    """
    with _folder_beside(path) as unfinished:
        write(unfinished / path.name)
        os.replace(unfinished / path.name, path)  # noqa: PTH105


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Make the folder that is to hold ``path``, and yield a temporary one in it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise UserError(f"output={path} cannot be written ({error.strerror}): give another place") from error
    with unfinished as name:
        yield Path(name)


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary folder beside ``folder``, then put it in place; an earlier export there is replaced.

    ``write`` leaves a record (:func:`write_record`), to which the names of all files are added: what is replaced later is known to be ours.

    Raises:
        UserError: before anything is written, if nothing can be written there, or ``folder`` is a file or holds something that is no
            export of this program.
    """
    check_replaceable(folder)
    with _folder_beside(folder) as unfinished:
        fresh, old = unfinished / "fresh", unfinished / "old"
        fresh.mkdir()
        write(fresh)
        write_record(fresh, read_record(fresh) | {FILES: _files(fresh)})
        if folder.exists():
            folder.replace(old)
        fresh.replace(folder)
        shutil.rmtree(old, ignore_errors=True)


def check_absent(path: Path) -> None:
    """Raise UserError where writing the file would destroy one, or a folder."""
    if path.exists():
        raise UserError(f"output={path} exists: give another file name, or delete it first")


def check_replaceable(folder: Path) -> None:
    """Raise UserError where writing the folder would destroy something that no export of this program has written."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder} is a file: give a folder")
    if not folder.is_dir() or not (there := _files(folder)):
        return
    if not (folder / RECORD).is_file():
        raise UserError(f"output={folder} holds other files (no {RECORD} among them): give a new or empty folder")
    ours = {RECORD, *read_record(folder).get(FILES, ())}
    if others := [name for name in there if name not in ours]:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UserError(f"output={folder} holds more than the export in it ({', '.join(others[:3])}{more}): give a new or empty folder")


def _files(folder: Path) -> list[str]:
    """Return what lies below a folder, sorted: paths with slashes, of files and of folders that hold nothing."""
    found = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir() or not any(path.iterdir())]
    return sorted(path.relative_to(folder).as_posix() for path in found)
