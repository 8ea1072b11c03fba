"""RAM's words and their thresholds: two text files of its repository, a line per tag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from osediff_exp.errors import UserError


@dataclass(frozen=True)
class TagList:
    """The names of the tags in the order of the logits, and the probability above which each is on."""

    names: tuple[str, ...]
    thresholds: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.names)


def read_tag_list(names: Path, thresholds: Path | None, *, threshold: float | None = None) -> TagList:
    """Read ``ram_tag_list.txt`` and ``ram_tag_list_threshold.txt``.

    Args:
        names: a tag per line.
        thresholds: a number in [0, 1] per line; None: ``threshold`` must be given.
        threshold: one for all tags, in place of their own.

    Raises:
        UserError: a file is empty or damaged, the files are of different lengths, or a threshold is out of range.
    """
    words = _lines(names)
    if threshold is not None:
        numbers = [threshold] * len(words)
    elif thresholds is None:
        raise UserError("prompt.thresholds is not set: give ram_tag_list_threshold.txt, or one prompt.threshold for all tags")
    else:
        numbers = _numbers(thresholds)
        if len(numbers) != len(words):
            raise UserError(f"{thresholds} has {len(numbers)} lines, {names} {len(words)}: give the two files of one repository")
    if not all(0.0 <= number <= 1.0 for number in numbers):
        raise UserError(f"thresholds are probabilities: {thresholds or f'prompt.threshold={threshold}'} has one outside 0 to 1")
    return TagList(tuple(words), tuple(numbers))


def check_length(tags: TagList, num_tags: int, *, names: Path, weights: Path) -> None:
    """Raise UserError unless there is a name for every logit."""
    if len(tags) != num_tags:
        raise UserError(f"{names} has {len(tags)} tags, {weights} {num_tags}: give the list that belongs to the weights (RAM: 4585)")


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a text file: give RAM's ram_tag_list.txt") from error
    if not lines or not all(line.strip() for line in lines):
        raise UserError(f"{path} has {'an empty line' if lines else 'no line'}: a line per tag is expected")
    return [line.strip() for line in lines]


def _numbers(path: Path) -> list[float]:
    try:
        return [float(line) for line in _lines(path)]
    except ValueError as error:
        raise UserError(f"{path} holds something else than a number per line ({error}): give ram_tag_list_threshold.txt") from error
