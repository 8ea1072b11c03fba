"""The pictures that an evaluation runs over: pairs of a low-quality picture and its original, and what is wrong with the others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from osediff_exp.data.cache import ImageLoader
from osediff_exp.data.checks import find_bad_images
from osediff_exp.data.images import read_size, to_float
from osediff_exp.data.paired_folder import PairedFolder, by_stem
from osediff_exp.data.pairs import to_tensor
from osediff_exp.errors import UserError, nearest, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from osediff_exp.data.pairs import ValidationPairs

MAX_SCALE = 8
LR_FOLDER, HR_FOLDER = "test_LR", "test_HR"


@dataclass(frozen=True)
class Pair:
    """A low-quality picture ``lr`` (1, 3, h, w) and its original ``hr`` (1, 3, scale h, scale w), float32 RGB in [0, 1], 8-bit values."""

    name: str
    lr: Tensor
    hr: Tensor

    @property
    def scale(self) -> int:
        """The whole number by which ``hr`` is larger."""
        return self.hr.shape[-1] // self.lr.shape[-1]


@dataclass(frozen=True)
class Problem:
    """A picture that could not take part: its name, what is wrong in a word (missing, mis-sized, unreadable), and the details."""

    name: str
    problem: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name} ({self.problem}: {self.detail})"


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Pairs in a fixed order, loaded one at a time.

    Args:
        title: the test set's name.
        names: of the pairs, unique.
        load: returns pair k.
        problems: the pictures left out.
    """

    title: str
    names: Sequence[str]
    load: Callable[[int], Pair]
    problems: Sequence[Problem] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Pair]:
        return map(self.load, range(len(self)))


def find_roots(root: str | None, lr_root: str | None, hr_root: str | None) -> tuple[str, str]:
    """Return the folders of LR and HR pictures: those given, else ``test_LR`` and ``test_HR`` inside ``root``, as the field ships them.

    Raises:
        UserError: a folder is neither given nor there.
    """
    if root is None and (lr_root is None or hr_root is None):
        raise UserError(f"data.root is not set: give the folder with {LR_FOLDER} and {HR_FOLDER}, or both data.lr_root and data.hr_root")
    return lr_root or _inside(root or "", LR_FOLDER, "data.lr_root"), hr_root or _inside(root or "", HR_FOLDER, "data.hr_root")


def _inside(root: str, name: str, key: str) -> str:
    folder = Path(root).expanduser() / name
    if not folder.is_dir():
        found = [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
        raise UserError(f"data.root={root} holds no folder {name}: set {key} to the folder of these pictures.{nearest(name, found)}")
    return str(folder)


def folder_pairs(*, title: str, lr_root: str, hr_root: str, first: int | None = None) -> PairSet:
    """Return the pairs of two folders (or text files of paths) with matching file names, sorted by name.

    Args:
        title: the test set's name.
        lr_root, hr_root: HR must be 1 to 8 times as large as LR, by a whole number.
        first: take only the first N names.

    Raises:
        UserError: a folder is missing or empty, two files of a folder share a name, or no pair is usable.
    """
    lr, hr = by_stem(lr_root, "data.lr_root"), by_stem(hr_root, "data.hr_root")
    names = sorted({*lr, *hr})[:first]
    alone = [_alone(name, "LR", lr_root, lr) for name in names if name not in lr]
    alone += [_alone(name, "HR", hr_root, hr) for name in names if name not in hr]
    both = [name for name in names if name in lr and name in hr]
    damaged = {
        bad.path: bad.reason for bad in find_bad_images([path for name in both for path in (lr[name], hr[name])], min_size=1, verify="full")
    }
    unusable = [_unusable(name, lr[name], hr[name], damaged) for name in both]
    problems = sorted([*alone, *(problem for problem in unusable if problem)], key=lambda problem: problem.name)
    usable = [name for name, problem in zip(both, unusable, strict=True) if problem is None]
    if not usable:
        raise UserError(f"no usable pair in {lr_root} and {hr_root}: {describe(problems)}; pairs need the same file name")
    read = ImageLoader()

    def load(k: int) -> Pair:
        name = usable[k]
        return Pair(name, *(to_tensor(to_float(read(paths[name])))[None] for paths in (lr, hr)))

    return PairSet(title=title, names=usable, load=load, problems=problems)


def _alone(name: str, kind: str, root: str, there: dict[str, Path]) -> Problem:
    return Problem(name, "missing", f"no {kind} picture of this name in {root}.{nearest(name, there)}")


def _unusable(name: str, lr: Path, hr: Path, damaged: dict[Path, str]) -> Problem | None:
    for path in (lr, hr):
        if path in damaged:
            return Problem(name, "unreadable", f"{shown(path)}: {damaged[path]}")
    small, large = read_size(lr), read_size(hr)
    scale = large[0] // small[0]
    if 1 <= scale <= MAX_SCALE and large == (scale * small[0], scale * small[1]):
        return None
    sizes = f"HR is {large[1]} x {large[0]}, LR {small[1]} x {small[0]}"
    return Problem(name, "mis-sized", f"{sizes}; HR must be 1 to {MAX_SCALE} times LR, by a whole number")


def validation_pairs(pairs: ValidationPairs | PairedFolder, *, title: str) -> PairSet:
    """Return the fixed validation pairs of a training's data as a test set."""
    names = [hr.stem for _, hr in pairs.pairs] if isinstance(pairs, PairedFolder) else [picture.name for picture in pairs.pictures]

    def load(k: int) -> Pair:
        sample = pairs[k]
        return Pair(sample["name"], sample["lr"][None], sample["hq"][None])

    return PairSet(title=title, names=names, load=load)


def describe(problems: Sequence[Problem], *, most: int = 3) -> str:
    """Return the first problems in one line, and how many more there are."""
    more = f" and {len(problems) - most} more" if len(problems) > most else ""
    return "; ".join(map(str, problems[:most])) + more
