"""Where a backbone's files are: the package, a local folder, or the hub with mirrors."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTokenizer

from osediff_exp.errors import UserError, nearest

EMBEDDED = Path(__file__).parent / "weights"
_MARKER = "unet/config.json"


class Part(StrEnum):
    """Subfolders of the diffusers layout that hold weights."""

    VAE = "vae"
    UNET = "unet"
    TEXT_ENCODER = "text_encoder"


Source = Path | str


class PartLoader:
    """Read parts of one source; a source is a local folder (Path) or a hub repository (str)."""

    def __init__(self, *, revision: str | None, variant: str | None, local_files_only: bool) -> None:
        self.revision, self.variant, self.local_files_only = revision, variant, local_files_only

    def _hub(self, source: Source) -> dict[str, Any]:
        return {} if isinstance(source, Path) else {"revision": self.revision, "local_files_only": self.local_files_only}

    def __call__(self, part_class: Any, source: Source, part: Part, dtype: torch.dtype) -> Any:
        """Return the part's module in ``dtype``; a damaged or mismatched file is the user's one clear line."""
        variant = {} if self.variant is None else {"variant": self.variant}
        name = "dtype" if part is Part.TEXT_ENCODER else "torch_dtype"
        try:
            return part_class.from_pretrained(source, subfolder=part.value, **{name: dtype}, **variant, **self._hub(source))
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise UserError(f"backbone part '{part}' of {source} cannot be loaded: {_first_line(error)}") from error

    def tokenizer(self, source: Source) -> CLIPTokenizer:
        try:
            return CLIPTokenizer.from_pretrained(source, subfolder="tokenizer", **self._hub(source))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"backbone tokenizer of {source} cannot be loaded: {_first_line(error)}") from error

    def json(self, source: Source, name: str) -> dict[str, Any]:
        """Return a JSON file of the source; FileNotFoundError (or another OSError) if it has none."""
        if isinstance(source, Path):
            return json.loads((source / name).read_text())
        from huggingface_hub import hf_hub_download

        return json.loads(Path(hf_hub_download(source, name, **self._hub(source))).read_text())


def resolve_source(sources: list[str], load: PartLoader) -> Source:
    """Return the first source that has a model in diffusers layout.

    Raises:
        UserError: naming every source tried and its fault.
    """
    faults = []
    for text in sources:
        try:
            source = as_source(text)
            load.json(source, _MARKER)
            return source
        except (OSError, ValueError, UserError) as error:
            faults.append(f"{text}: {_first_line(error)}")
    raise UserError(
        f"none of the backbone's sources can be loaded ({'; '.join(faults) or 'backbone.loader.sources is empty'}): put a folder in "
        "diffusers layout on disk and pass backbone.loader.sources=[FOLDER] (with checkpoint=: restorer.sources; of task=export: sources)"
    )


def as_source(text: str) -> Source:
    """Return what ``text`` names: an embedded model or a folder (Path), or a hub repository (str); UserError where it is neither."""
    if text.startswith("embedded:"):
        folder = EMBEDDED / text.removeprefix("embedded:")
        if not (folder / _MARKER).is_file():
            known = [path.parents[1].name for path in EMBEDDED.glob(f"*/{_MARKER}")]  # checkpoints lie beside them
            raise UserError(f"no embedded backbone '{folder.name}'.{nearest(folder.name, known)}")
        return folder
    folder = Path(text).expanduser()
    if folder.is_dir():
        if not (folder / _MARKER).is_file():
            raise UserError(f"the folder has no {_MARKER}")
        return folder
    if text.count("/") == 1 and not text.startswith((".", "/", "~")):
        return text
    raise UserError("no such folder")


def source_name(source: Source) -> str:
    """Return what :func:`as_source` understands as ``source`` wherever the package lies: its own folders go by name."""
    return f"embedded:{source.name}" if isinstance(source, Path) and source.parent == EMBEDDED else str(source)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
