"""Text features on disk: a file per text, written beside its place and moved there."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from osediff_exp.models.prompt_cache.fingerprints import digest

log = logging.getLogger(__name__)

GIB = 2**30
_RECOUNT = 256
"""Additions after which the folder is counted again: other processes add to it too."""


class FeatureStore:
    """The features (L, D) of texts by one text encoder: ``ROOT/features/ENCODER/ab/abc....safetensors``.

    Args:
        root: folder of the cache.
        encoder: name of the text encoder (see :func:`osediff_exp.models.prompt_cache.fingerprints.encoder_key`).
        limit_gib: the folder of this encoder grows no further than this, but for 256 texts of every process that adds to it at the time.
            Tags make a new text of almost every picture, and Stable Diffusion's features take 158 KB (half precision) or 315 KB each.
    """

    def __init__(self, root: Path, *, encoder: str, limit_gib: float) -> None:
        self.folder, self.limit = root / "features" / encoder, limit_gib * GIB
        self._size, self._added = 0, _RECOUNT

    def get(self, text: str) -> Tensor | None:
        """Return the features of ``text``; None where they are not there, or damaged."""
        try:
            return load_file(self._path(text))["features"]
        except (OSError, SafetensorError, KeyError):
            return None

    def add(self, text: str, features: Tensor) -> None:
        """Keep the features of ``text``; where there is no room, or no permission, they are not kept."""
        if self._used() + features.nbytes > self.limit:
            return
        path = self._path(text)
        temporary = path.with_name(f".{os.getpid()}-{secrets.token_hex(6)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"features": features.contiguous()}, temporary)
            temporary.replace(path)
        except (OSError, SafetensorError) as error:
            temporary.unlink(missing_ok=True)
            log.warning("text features are not kept: %s cannot be written (%s); prompt.cache=DIR chooses another place", self.folder, error)
            self.limit = 0.0
        else:
            self._size, self._added = self._size + features.nbytes, self._added + 1

    def _used(self) -> int:
        """Return the bytes in the folder: as counted, now and then, and what this process has added since."""
        if self._added >= _RECOUNT:
            self._size, self._added = sum(_size(file) for file in self.folder.glob("*/*.safetensors")), 0
        return self._size

    def _path(self, text: str) -> Path:
        name = digest(text)
        return self.folder / name[:2] / f"{name}.safetensors"


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # somebody clears the cache
        return 0
