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


class FeatureStore:
    """The features (L, D) of texts by one text encoder: ``ROOT/features/ENCODER/ab/abc....safetensors``.

    Args:
        root: folder of the cache.
        encoder: name of the text encoder (see :func:`osediff_exp.models.prompt_cache.fingerprints.encoder_key`).
        limit_gib: the folder of this encoder grows no further than this: tags make a new text of almost every picture, and Stable
            Diffusion's features take 158 KB (half precision) or 315 KB of disk each.
    """

    def __init__(self, root: Path, *, encoder: str, limit_gib: float) -> None:
        self.folder, self.limit = root / "features" / encoder, limit_gib * GIB
        self._size: int | None = None

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
            self._size = self._used() + features.nbytes

    def _used(self) -> int:
        """Return the bytes in the folder, counted once."""
        if self._size is None:
            self._size = sum(file.stat().st_size for file in self.folder.glob("*/*.safetensors"))
        return self._size

    def _path(self, text: str) -> Path:
        name = digest(text)
        return self.folder / name[:2] / f"{name}.safetensors"
