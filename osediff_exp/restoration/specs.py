"""What a user may name as a restorer: bicubic, realesrgan, a checkpoint, a folder of finished outputs, another project's model file."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from osediff_exp.checkpoints import own
from osediff_exp.checkpoints.files import RECORD, read_pickle
from osediff_exp.checkpoints.named import OTHER_RESTORERS, checkpoint_path, embedded_names, is_embedded, name_of
from osediff_exp.data.images import is_image_file
from osediff_exp.errors import UserError, nearest
from osediff_exp.restoration import realesrgan

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Sequence

Kind = Literal["bicubic", "checkpoint", "outputs", "spandrel"]
_PREFIXES: tuple[Kind, ...] = ("checkpoint", "outputs", "spandrel")
ORIGINALS, INPUTS = "hq", "lq"
"""Folders that stand among those of restorers' pictures and hold no restorer's."""
_RELEASED_KEY = "state_dict_unet"  # only the released osediff.pkl has it


@dataclass(frozen=True)
class RestorerSpec:
    """A restorer by kind and path (None for ``bicubic``)."""

    kind: Kind
    path: Path | None = None


def parse_restorer(entry: str) -> RestorerSpec:
    """Return what ``entry`` names; a path's kind is told from its content unless a prefix (``outputs:DIR``) says it.

    A name goes before a file of that name: ``./realesrgan`` is the file.

    Raises:
        UserError: there is no such path, it is nothing that restores, or what the name stands for is not installed.
    """
    if entry == "bicubic":
        return RestorerSpec("bicubic")
    prefix, colon, rest = entry.partition(":")
    kind = next((kind for kind in _PREFIXES if colon and kind == prefix), None)
    name = rest if kind else entry
    if name == realesrgan.NAME and kind in (None, "spandrel"):
        return RestorerSpec("spandrel", realesrgan.realesrgan_weights())
    if is_embedded(entry):
        kind = "checkpoint"
    path = checkpoint_path(name) if kind == "checkpoint" else Path(name).expanduser()
    if not path.exists():
        raise UserError(_no_such(entry, path, prefix if colon and not kind else ""))
    return RestorerSpec(kind or _kind_of(path), path)


def _no_such(entry: str, path: Path, prefix: str) -> str:
    siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(prefix, _PREFIXES) if prefix else nearest(path.name, [*siblings, *OTHER_RESTORERS, *embedded_names()])
    names = ", ".join(OTHER_RESTORERS)
    return f"restorer '{entry}': there is no such file or folder; give {names}, a checkpoint, a folder of outputs or a model file.{hint}"


def _kind_of(path: Path) -> Kind:
    if not path.is_dir():
        return "checkpoint" if path.suffix != ".safetensors" and _is_own_file(path) else "spandrel"
    if (path / "checkpoints").is_dir() or (path / RECORD).is_file() or (path / "last.ckpt").is_file():
        return "checkpoint"
    if any(is_image_file(file) for file in path.rglob("*")):
        return "outputs"
    raise UserError(f"restorer '{path}': the folder is no run (checkpoints/last.ckpt), no export (osediff.json), and holds no pictures")


def _is_own_file(path: Path) -> bool:
    """Tell whether a torch-saved file is a checkpoint of ours or of the released code; only plain tensors are unpickled."""
    try:
        content = read_pickle(path)
    except UserError:
        return path.suffix in (".ckpt", ".pkl")  # whoever loads it says what is wrong with it
    return own.is_own(content) or _RELEASED_KEY in content


def label_of(spec: RestorerSpec) -> str:
    """Return a short name: its own if it has one, the run's folder for its last checkpoint, else the name of file or folder."""
    if spec.path is None:
        return spec.kind
    if name := _own_name(spec.path):
        return name
    path = spec.path.resolve()
    if path.is_file() and path.parent.name == "checkpoints":
        run = path.parent.parent.name
        return run if path.stem == "last" else f"{run}_{path.stem}"
    return path.stem if path.is_file() else path.name


def _own_name(path: Path) -> str | None:
    return realesrgan.NAME if realesrgan.is_realesrgan(path) else name_of(path)


def name_restorers(entries: Sequence[tuple[str | None, str]], *, figures: Collection[str] = ()) -> dict[str, RestorerSpec]:
    """Return the restorers by unique labels, in order.

    Entries that would have one label get the folder above in front, then a number behind. Labels name folders: signs other than
    letters, digits and ``. _ = + , -`` become ``_``, and none is called as the folders of originals and inputs are.

    Args:
        entries: (label, or None for one made from the path; what the user names).
        figures: names that no label begins: ``st`` beside ``st_lpips`` would make ``st_lpips`` of st's LPIPS. Such a label gets a number.

    Raises:
        UserError: see :func:`parse_restorer`.
    """
    specs = [parse_restorer(entry) for _, entry in entries]
    plain = [label or label_of(spec) for (label, _), spec in zip(entries, specs, strict=True)]
    often = Counter(plain)
    named: dict[str, RestorerSpec] = {}
    for (given, _), label, spec in zip(entries, plain, specs, strict=True):
        wanted = label if given or often[label] == 1 else _longer(spec, label)
        named[_unique(_folder_name(wanted), {*named, ORIGINALS, INPUTS}, figures)] = spec
    return named


def _longer(spec: RestorerSpec, label: str) -> str:
    if spec.path is None or _own_name(spec.path):
        return label
    path = spec.path.resolve()
    above = path.parent.parent.parent if path.is_file() and path.parent.name == "checkpoints" else path.parent
    return f"{above.name}_{label}"


def _folder_name(label: str) -> str:
    return re.sub(r"[^\w.=+,-]+", "_", label).strip(".") or "restorer"


def _unique(label: str, taken: Container[str], figures: Collection[str]) -> str:
    number, candidate = 2, label
    while candidate in taken or any(name.startswith(f"{candidate}_") for name in figures):
        candidate, number = f"{label}_{number}", number + 1
    return candidate
