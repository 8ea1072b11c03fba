"""Which photos a folder holds, and what their restored pictures will be called."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from osediff_exp.data.images import IMAGE_SUFFIXES, is_image_file
from osediff_exp.errors import UserError, nearest, shown

OutputFormat = Literal["png", "same"]


@dataclass(frozen=True)
class Job:
    """A photo and its output's path, relative to the output folder."""

    source: Path
    target: Path


def plan_jobs(source: Path, output: Path, output_format: OutputFormat) -> tuple[list[Job], list[str]]:
    """List the photos of ``source`` (a file, or a folder with the folders in it) in order of their names.

    The outputs keep the folders' structure. Photos of one folder that share a stem keep their suffix in the output's name: ``a.png`` and
    ``a.jpg`` become ``a.png.png`` and ``a.jpg.png``. Hidden files, and the output folder if it lies inside the input, are no photos.

    Returns:
        The jobs, and one line for each group of photos whose outputs would still have one name.

    Raises:
        UserError: there is no photo, or an output could replace a photo of the input.
    """
    if output_format not in get_args(OutputFormat):
        raise UserError(f"format={output_format} is unknown: use png or same.{nearest(output_format, get_args(OutputFormat))}")
    _check_places(source.resolve(), output.resolve())
    paths = [source] if source.is_file() else _photos(source, output)
    root = source.parent if source.is_file() else source
    names = _output_names([path.relative_to(root) for path in paths], output_format)
    by_target: dict[Path, list[Path]] = defaultdict(list)
    for path, name in zip(paths, names, strict=True):
        by_target[name].append(path)
    jobs = [Job(sources[0], target) for target, sources in by_target.items() if len(sources) == 1]
    return jobs, [
        f"{' and '.join(map(shown, sources))}: both would become {shown(target)}: rename one"
        for target, sources in by_target.items()
        if len(sources) > 1
    ]


def left_alone(source: Path, output: Path) -> list[Path]:
    """Return the files of the folder ``source`` that :func:`plan_jobs` takes for no photos; hidden ones and outputs are not counted."""
    if source.is_file():
        return []
    return [path for path in _files(source, output) if not is_image_file(path)]


def _check_places(source: Path, output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"output={output} is a file: give a folder")
    folder = source if source.is_dir() else source.parent
    if folder == output or (source.is_dir() and output in source.parents):
        raise UserError(f"input={source} lies in output={output}, where outputs could replace photos: give another output folder")


def _photos(folder: Path, output: Path) -> list[Path]:
    paths = [path for path in _files(folder, output) if is_image_file(path)]
    if not paths:
        raise UserError(f"input={folder} holds no photo ({', '.join(IMAGE_SUFFIXES)}): give another folder or a file")
    return paths


def _files(folder: Path, output: Path) -> list[Path]:
    """Return the visible files in ``folder`` and the folders in it, in order of their names, without those in ``output``.

    A link to nothing counts as a file: whoever moved the photos behind it should hear of them.
    """
    excluded = output.resolve()
    return sorted(
        path
        for path in folder.rglob("*")
        if (path.is_file() or (path.is_symlink() and not path.is_dir()))
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and excluded not in Path(os.path.realpath(path)).parents
    )


def _output_names(names: list[Path], output_format: OutputFormat) -> list[Path]:
    if output_format == "same":
        return names
    count = Counter(name.with_suffix("") for name in names)
    return [name.with_name(f"{name.name}.png") if count[name.with_suffix("")] > 1 else name.with_suffix(".png") for name in names]
