"""Where photos come from: folders and lists of paths, each an image list with a weight."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from osediff_exp.data.images import is_image_file
from osediff_exp.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Picture:
    """One photo of an image list.

    Attributes:
        path: the file.
        name: what the picture is called in batches, tables and file names.
        centre: (row, column) round which a validation crop is taken; None: the photo's centre.
    """

    path: Path
    name: str
    centre: tuple[int, int] | None = None


class Source(Protocol):
    """An image list: training chooses a list by weight, then a picture uniformly inside it."""

    @property
    def key(self) -> str:
        """The configuration key that sets this list, for messages."""

    @property
    def weight(self) -> float:
        """Relative probability of the list, >= 0."""

    def pictures(self) -> list[Picture]:
        """Return the pictures in a fixed order; raise UserError where there are none to be found."""


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """A folder of photos (searched recursively), a text file of paths, a single photo, or several of these as one list.

    Pictures are in sorted order of their path below the folder, so ``first=10000`` of FFHQ is the field's subset; a text file keeps its
    own order. Hidden files are passed over; linked folders are followed.

    Args:
        root: path, or list of paths; None stands for "not set".
        key: the configuration key that set ``root``, for messages.
        weight: relative probability of this list in the training mixture.
        first: take only the first N pictures.
        optional: a ``root`` of None gives an empty list and no error.
    """

    root: str | Sequence[str] | None
    key: str = "data.root"
    weight: float = 1.0
    first: int | None = None
    optional: bool = False

    def pictures(self) -> list[Picture]:
        """Return the pictures; see the class for their order.

        Raises:
            UserError: root is not set, does not exist, or holds no image.
        """
        if not self.root:
            if self.optional:
                return []
            raise UserError(f"{self.key} is not set: give the folder of photos (or a text file of paths), e.g. {self.key}=/data/photos")
        roots = [self.root] if isinstance(self.root, str) else list(self.root)
        paths = [path for root in roots for path in _paths_of(Path(root).expanduser(), self.key)]
        return [Picture(path, path.stem) for path in paths[: self.first]]


def _paths_of(root: Path, key: str) -> list[Path]:
    if root.is_dir():
        paths = sorted(_walk(root), key=lambda path: path.relative_to(root).as_posix())
    elif root.is_file():
        paths = [root] if is_image_file(root) else _read_list(root, key)
    else:
        raise missing_path(root, key)
    if not paths:
        raise UserError(f"{key}={root} holds no image (png, jpg, webp, bmp, tif): give another folder")
    return paths


def missing_path(path: Path, key: str) -> UserError:
    """Return the error for a path that does not exist, with the name beside it that comes closest."""
    parent = next(p for p in path.absolute().parents if p.is_dir())
    wanted = path.absolute().relative_to(parent).parts[0]
    hint = nearest(wanted, (entry.name for entry in parent.iterdir() if entry.is_dir() or entry.suffix == ".txt"))
    return UserError(f"{key}={path} does not exist: '{wanted}' is not in {parent}.{hint or f' Set {key} to an existing folder.'}")


def _walk(root: Path) -> Iterator[Path]:
    seen: set[str] = set()  # a link may lead back up
    for folder, subfolders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in seen else [name for name in subfolders if not name.startswith(".")]
        if real not in seen:
            yield from (Path(folder, name) for name in files if not name.startswith(".") and is_image_file(Path(name)))
        seen.add(real)


def _read_list(file: Path, key: str) -> list[Path]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{key}={file} is neither an image nor a text file of paths: give a folder, or one path per line") from None
    entries = (line.split(" #")[0].strip() for line in lines)
    return [file.parent / entry for entry in entries if entry and not entry.startswith("#")]


def with_unique_names(pictures: Sequence[Picture]) -> list[Picture]:
    """Rename pictures that share a name (``a/1.png``, ``b/1.png``): parent folder in front (``b-1``), then a number behind (``1-2``).

    The hyphen keeps them from looking like the crops of one photo (photo_units.py: ``b_1``, ``b_2``). Names become file names and table
    rows, and key the degradation of a validation picture.
    """
    taken: set[str] = set()
    renamed = []
    for picture in pictures:
        candidates = (picture.name, f"{picture.path.parent.name}-{picture.name}")
        name = next((name for name in candidates if name not in taken), "")
        number = 2
        while not name:
            candidate = f"{picture.name}-{number}"
            name, number = ("" if candidate in taken else candidate), number + 1
        taken.add(name)
        renamed.append(Picture(picture.path, name, picture.centre))
    return renamed
