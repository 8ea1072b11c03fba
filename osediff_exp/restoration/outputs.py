"""Finished outputs as a restorer: a folder of pictures that some program has left, looked up by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from osediff_exp.data.cache import ImageLoader
from osediff_exp.data.images import to_float
from osediff_exp.data.paired_folder import by_stem
from osediff_exp.data.pairs import to_tensor
from osediff_exp.errors import UserError, nearest
from osediff_exp.restoration.base import ImageRestorer

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


class FolderRestorer(ImageRestorer):
    """Returns the picture of the same name from a folder of outputs.

    Args:
        folder: searched recursively; file names without suffix are the pictures' names.

    Raises:
        UserError: the folder is missing or empty, or two files share a name.
    """

    def __init__(self, *, folder: Path) -> None:
        self.folder = folder
        self.paths = by_stem(str(folder), "outputs")
        self._load = ImageLoader()

    def __call__(self, lr: Tensor, *, scale: int, names: list[str]) -> Tensor:
        """See :meth:`ImageRestorer.__call__`.

        Raises:
            UserError: there is no output of that name, it cannot be decoded, or it has another size.
        """
        height, width = (scale * side for side in lr.shape[-2:])
        return torch.stack([self._read(name, height, width) for name in names])

    def _read(self, name: str, height: int, width: int) -> Tensor:
        if name not in self.paths:
            raise UserError(f"{self.folder} holds no output named '{name}'.{nearest(name, self.paths)}")
        picture = to_tensor(to_float(self._load(self.paths[name])))
        if picture.shape[-2:] != (height, width):
            raise UserError(f"{self.paths[name]} is {picture.shape[2]} x {picture.shape[1]}, expected {width} x {height}")
        return picture
