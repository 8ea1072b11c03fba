"""The extractor and the bookkeeping that the ways of tagging share."""

from __future__ import annotations

import csv
import io
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from osediff_exp.checkpoints.files import write_file
from osediff_exp.errors import Incomplete, UserError
from osediff_exp.models.prompts import TaggedPrompt
from osediff_exp.models.taggers.cached import CachedTagger
from osediff_exp.restoration.numerics import choose_device
from osediff_exp.restoration.progress import FileProgress
from osediff_exp.runtime import machine, peak_memory_gib
from osediff_exp.tasks.prompting import build_prompts

Figures = dict[str, float | int | str | None]
# What Pillow's decoders raise of a damaged file.
UNREADABLE = (OSError, ValueError, SyntaxError)


class Work:
    """A tagger at work on many pictures.

    Raises:
        UserError: the configuration's prompts are not made by a tagger.
    """

    def __init__(self, config: DictConfig) -> None:
        extractor = build_prompts(config)
        if not isinstance(extractor, TaggedPrompt) or not isinstance(extractor.tagger, CachedTagger):
            kind = "its words are constant" if config.prompt.words in ("fixed", "none") else "it tags no pictures"
            raise UserError(
                f"there is nothing to tag with this prompt ({kind}): choose prompt=tagged, ram or captioner, with prompt.words=own"
            )
        in_training = extractor.in_training
        assert isinstance(in_training, TaggedPrompt)
        self.extractor, self.in_training, self.tagger = extractor, in_training, extractor.tagger
        self.batch_size: int = config.tag.batch_size
        self.like: Tensor = torch.zeros((), device=choose_device(config.tag.device))
        self.console = Console()
        self._started = time.perf_counter()

    def progress(self, total: int, what: str = "tagging") -> FileProgress:
        """Return a bar on a terminal, a line now and then elsewhere."""
        return FileProgress(total=total, label=what, console=self.console)

    def figures(self) -> Figures:
        """Return what was done, and say it."""
        seconds = time.perf_counter() - self._started
        found = self.extractor.figures()
        hits, misses = int(found["tag_cache_hits"]), int(found["tag_cache_misses"])
        kept = "nowhere (prompt.cache=null)" if self.tagger.root is None else str(self.tagger.root)
        place = "not kept (prompt.cache=null)" if self.tagger.root is None else f"kept in {kept}"
        self.console.print(f"{misses} tagged, {hits} known before; {place}", highlight=False, soft_wrap=True)
        return {
            "num_images": hits + misses,
            **found,
            "images_per_second": (hits + misses) / seconds,
            "tagger": str(self.tagger.described["tagger"]),
            "tagger_fingerprint": self.tagger.fingerprint,
            "cache": kept,
            "peak_memory_gib": peak_memory_gib(str(self.like.device)),
            "machine": machine(str(self.like.device)),
        }


def unread(failures: Sequence[str], figures: Figures, run_dir: Path) -> Incomplete:
    """Return the end of a job whose photos cannot all be read; ``failed.txt`` names each."""
    report = run_dir / "failed.txt"
    write_whole(report, lambda file: file.write_text("".join(f"{line}\n" for line in failures), encoding="utf-8"))
    return Incomplete(f"{len(failures)} photos cannot be read, {failures[0]} first (all in {report}): mend or remove them", figures)


def shared_order(count: int) -> list[int]:
    """Return 0 .. count - 1, begun somewhere by chance: several processes with one list then work at different places of it, and each
    passes by what the others have done."""
    start = secrets.randbelow(count) if count else 0
    return [*range(start, count), *range(start)]


def batches(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Yield runs of ``size`` items."""
    return (items[k : k + size] for k in range(0, len(items), size))


def as_sidecar(words: Mapping[str, Sequence[str]]) -> str:
    """Return pictures and their tags as a CSV that prompt=sidecar reads."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "tags"])
    writer.writerows([name, ", ".join(tags)] for name, tags in words.items())
    return text.getvalue()


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that is there whole or not at all; UserError where it cannot be written."""

    def writing(file: Path) -> None:
        write(file)

    try:
        write_file(path, writing)
    except OSError as error:
        raise UserError(f"output={path} cannot be written ({error.strerror}): give another place") from error
