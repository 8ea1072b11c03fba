"""Pictures that an evaluation had restored when it was stopped: the next one in its folder restores the others."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from osediff_exp.data.images import load_rgb, to_bytes
from osediff_exp.restoration.finished import FinishedRecord, fingerprint
from osediff_exp.restoration.picture_files import written_whole

if TYPE_CHECKING:
    from torch import Tensor

    from osediff_exp.evaluation.pair_sets import Pair


class KeptPictures:
    """The pictures of one restorer, ``NAME.png``, with the seconds that each took.

    Args:
        folder: of the pictures.
        settings: what besides the low-quality picture decides how they look, as a fingerprint; None: nothing is found again.
    """

    def __init__(self, folder: Path, settings: str | None) -> None:
        self.folder, self._settings = folder, settings
        self._record = FinishedRecord(folder)

    def find(self, pair: Pair) -> tuple[Tensor, float] | None:
        """Return the picture (1, 3, H, W) in [0, 1] of an earlier evaluation that was made of just this, and its seconds."""
        if self._settings is None or (entry := self._record.entry(_file(pair), self._made_of(pair))) is None:
            return None
        pixels = torch.from_numpy(load_rgb(self.folder / _file(pair))).permute(2, 0, 1)[None].contiguous()
        return pixels.float().div(255), float(entry["seconds"])

    def save(self, pair: Pair, picture: Tensor, seconds: float) -> None:
        """Write (1, 3, H, W) in [0, 1] as an 8-bit PNG, whole or not at all, and note it."""
        with written_whole(self.folder / _file(pair)) as temporary:
            _write_png(temporary, picture)
            self._record.add(_file(pair), self._made_of(pair), temporary, seconds=seconds)

    def _made_of(self, pair: Pair) -> str:
        return fingerprint(self._settings or "", hashlib.sha256(pair.lr.numpy().tobytes()).hexdigest(), str(pair.scale))


def save_original(folder: Path, pair: Pair) -> None:
    """Write a pair's original as ``folder/NAME.png``, whole or not at all: a report shows it beside what was restored."""
    with written_whole(folder / _file(pair)) as temporary:
        _write_png(temporary, pair.hr)


def _write_png(path: Path, picture: Tensor) -> None:
    Image.fromarray(to_bytes(picture[0].permute(1, 2, 0).cpu().numpy())).save(path, format="PNG", compress_level=3)


def _file(pair: Pair) -> Path:
    return Path(f"{pair.name}.png")
