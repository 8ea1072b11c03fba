"""The restorers of one evaluation: what each is called, and how it is brought to life when its turn comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from osediff_exp.restoration.bicubic import BicubicRestorer
from osediff_exp.restoration.outputs import FolderRestorer
from osediff_exp.restoration.spandrel_model import SpandrelRestorer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from osediff_exp.restoration.base import ImageRestorer
    from osediff_exp.restoration.specs import RestorerSpec


@dataclass(frozen=True)
class Arm:
    """A restorer by its unique label, which also names its folder of pictures; ``build`` loads it."""

    label: str
    build: Callable[[], ImageRestorer]


def make_arm(label: str, spec: RestorerSpec, *, load_checkpoint: Callable[[Path], ImageRestorer], device: torch.device | str) -> Arm:
    """Return the arm of a restorer; nothing heavy is loaded yet.

    Args:
        label: unique among the arms.
        spec: which restorer.
        load_checkpoint: makes a restorer of a checkpoint's path.
        device: where models of other projects compute.
    """

    def build() -> ImageRestorer:
        if spec.path is None:
            return BicubicRestorer()
        if spec.kind == "checkpoint":
            return load_checkpoint(spec.path)
        return FolderRestorer(folder=spec.path) if spec.kind == "outputs" else SpandrelRestorer(path=spec.path, device=device)

    return Arm(label, build)
