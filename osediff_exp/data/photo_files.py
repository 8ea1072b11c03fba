"""A whole photo on disk, for those who tell about photos: its content's name is known without decoding it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osediff_exp.data.images import load_rgb, to_float
from osediff_exp.data.pairs import to_tensor
from osediff_exp.models.prompt_cache.fingerprints import file_key

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PhotoFile:
    """The :class:`osediff_exp.models.taggers.base.Photo` of a file."""

    path: Path

    @property
    def name(self) -> str:
        """The file's name without suffix, as in batches."""
        return self.path.stem

    @property
    def key(self) -> str:
        """The file's bytes."""
        return file_key(self.path)

    def load(self) -> Tensor:
        """Return the whole picture (3, H, W) in [0, 1]."""
        return to_tensor(to_float(load_rgb(self.path)))
