"""Tagging whole photos: into the cache, and into a file that prompt=sidecar reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from osediff_exp.data.photo_files import PhotoFile
from osediff_exp.data.sources import ImageSource
from osediff_exp.errors import shown
from osediff_exp.models.prompts import TaggedPrompt
from osediff_exp.tasks.tag.work import UNREADABLE, Figures, Work, as_sidecar, batches, shared_order, unread, write_whole

SIDECAR = "tags.csv"


def tag_photos(config: DictConfig, path: Path, run_dir: Path) -> Figures:
    """Tag the photos of a folder (and those in it), a list of paths or a single one; leave ``tags.csv``.

    Raises:
        Incomplete: some photos cannot be read; the others are tagged.
    """
    files = [picture.path for picture in ImageSource(root=str(path), key="input").pictures()]
    work = Work(config)
    words, failures = words_of_files(work, {_called(file, path): file for file in files}, work.extractor)
    target = Path(config.output).expanduser() if config.output else run_dir / SIDECAR
    text = as_sidecar(words)
    write_whole(target, lambda file: file.write_bytes(text.encode()))
    figures = work.figures() | {"output": str(target), "num_failed": len(failures)}
    for name in list(words)[:3]:
        work.console.print(f"{name}: {', '.join(words[name]) or '(no tag)'}", highlight=False, soft_wrap=True)
    work.console.print(f"all {len(words)}: {target}", highlight=False, soft_wrap=True)
    if failures:
        raise unread(failures, figures, run_dir)
    return figures


def _called(file: Path, given: Path) -> str:
    """Return what a sidecar calls a photo: its path below the folder that was given, for names alone may be several photos'."""
    if given.is_dir():
        return file.relative_to(given).as_posix()
    return file.name if file == given else file.absolute().as_posix()


def words_of_files(work: Work, files: dict[str, Path], extractor: TaggedPrompt) -> tuple[dict[str, list[str]], list[str]]:
    """Return the tags of photos by name, in the order of ``files``, and a clause for each that cannot be read."""
    names = list(files)
    found: dict[str, list[str]] = {}
    failures: list[str] = []
    with work.progress(len(names)) as progress:
        for batch in batches(shared_order(len(names)), work.batch_size):
            progress.start(names[batch[0]])
            found |= _words(work, extractor, {names[k]: files[names[k]] for k in batch}, failures)
            progress.advance(len(batch))
    return {name: found[name] for name in names if name in found}, failures


def _words(work: Work, extractor: TaggedPrompt, files: dict[str, Path], failures: list[str]) -> dict[str, list[str]]:
    try:
        return dict(zip(files, _together(work, extractor, list(files.values())), strict=True))
    except UNREADABLE as error:
        if len(files) == 1:
            failures.append(f"{shown(next(iter(files.values())))} ({getattr(error, 'strerror', None) or error})")
            return {}
        return {name: words for one, path in files.items() for name, words in _words(work, extractor, {one: path}, failures).items()}


def _together(work: Work, extractor: TaggedPrompt, paths: Sequence[Path]) -> list[list[str]]:
    return extractor.words_of_photos([PhotoFile(path) for path in paths], like=work.like)
