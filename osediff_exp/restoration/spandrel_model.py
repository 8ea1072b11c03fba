"""Single-image models of other projects (Real-ESRGAN, SwinIR, DAT, ...), loaded from their weight files by the library spandrel."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate

from osediff_exp.errors import UserError
from osediff_exp.models.winograd import winograd_layers
from osediff_exp.restoration.base import ImageRestorer
from osediff_exp.restoration.ncnn_weights import read_rrdbnet
from osediff_exp.restoration.numerics import deterministic_numerics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

log = logging.getLogger(__name__)


class SpandrelRestorer(ImageRestorer):
    """Runs a model file whose architecture spandrel recognises by its tensors.

    The model enlarges by its own factor; where another one is asked for, its result is resized (bicubic, antialiased) and the log says so.
    Larger pictures than ``tile`` go through in tiles that overlap, unless the model asks not to be tiled.

    Args:
        path: .pth, .pt, .ckpt or .safetensors; or the .param of an RRDBNet in ncnn's form, with its .bin beside it.
        device: torch device of the model.
        tile: side of a tile in low-quality pixels.
        overlap: low-quality pixels that a tile sees beyond each inner border; they are cut off its result.

    Raises:
        UserError: spandrel is not installed, does not know the file, or the model does not map one RGB picture to one.
    """

    def __init__(self, *, path: Path, device: torch.device | str = "cpu", tile: int = 512, overlap: int = 32) -> None:
        self.path, self.device = path, torch.device(device)
        self.model = _load(path, self.device)
        self.factor = int(self.model.scale)
        self.tile = tile if self.model.tiling.name == "SUPPORTED" else None
        self.overlap = overlap
        self._told: set[int] = set()

    def __call__(self, lr: Tensor, *, scale: int, names: list[str]) -> Tensor:
        """See :meth:`ImageRestorer.__call__`."""
        pictures = [self._enlarge(picture[None]) for picture in lr]
        restored = torch.cat(pictures)
        if scale != self.factor:
            self._tell(scale)
            size = [scale * side for side in lr.shape[-2:]]
            restored = interpolate(restored, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return restored

    def _tell(self, scale: int) -> None:
        if scale not in self._told:
            log.warning("%s enlarges %d times; its pictures are resized to %d times", self.path.name, self.factor, scale)
            self._told.add(scale)

    def _enlarge(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        if self.tile is None or max(height, width) <= self.tile:
            return self._run(lr)
        f = self.factor
        out = torch.empty(1, 3, f * height, f * width)
        for top, bottom in _spans(height, self.tile):
            for left, right in _spans(width, self.tile):
                out[..., f * top : f * bottom, f * left : f * right] = self._tile(lr, top, bottom, left, right)
        return out

    def _tile(self, lr: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
        """Restore rows top..bottom and columns left..right of ``lr``, seen with their surroundings."""
        f, first_row, first_column = self.factor, max(top - self.overlap, 0), max(left - self.overlap, 0)
        seen = self._run(lr[..., first_row : bottom + self.overlap, first_column : right + self.overlap])
        rows = slice(f * (top - first_row), f * (bottom - first_row))
        return seen[..., rows, f * (left - first_column) : f * (right - first_column)]

    def _run(self, lr: Tensor) -> Tensor:
        with deterministic_numerics(), _quiet():
            return self.model(lr.to(self.device, torch.float32)).float().cpu().clone()  # made outside the library's inference mode


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Cut 0..length into spans of at most ``tile``, as equal as can be."""
    count = -(-length // tile)
    edges = [length * k // count for k in range(count + 1)]
    return list(pairwise(edges))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the user what the models' own old code makes torch warn about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid: .*")
        yield


def _load(path: Path, device: torch.device) -> Any:
    if find_spec("spandrel") is None:
        raise UserError(f"{path} needs the library spandrel, which is not installed: pip install 'osediff-exp[spandrel]'")
    from spandrel import ImageModelDescriptor, ModelLoader

    try:
        with _quiet():
            loader = ModelLoader(device)
            model = loader.load_from_state_dict(read_rrdbnet(path)) if path.suffix == ".param" else loader.load_from_file(path)
    except Exception as error:  # a file that is no model raises whatever its reader met: unpickling, key, value and its own errors
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is no model that spandrel can load ({type(error).__name__}: {why})") from error
    if not isinstance(model, ImageModelDescriptor) or (model.input_channels, model.output_channels) != (3, 3):
        raise UserError(f"{path} ({model.architecture.name}) does not map one RGB picture to one: choose a super-resolution model")
    if device.type == "cpu":
        winograd_layers(model.model)
    return model.eval()
