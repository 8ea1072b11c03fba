"""Which pictures stand behind an arm's figures: only means over the same pictures can be set side by side."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osediff_exp.reporting.figures import as_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.figures import Metric
    from osediff_exp.reporting.runs import Run

Names = frozenset[str]
_MOST_LABELS = 3


@dataclass(frozen=True)
class Behind:
    """What stands behind the mean of one arm and metric, where that is not the same for all; "" otherwise.

    Attributes:
        pictures: the fewest and the most pictures that a seed was scored on; None where the arms do not differ in them.
        seeds: how many have a figure; None where all finished ones do.
    """

    pictures: tuple[int, int] | None = None
    seeds: int | None = None

    def __str__(self) -> str:
        """Return "6 pictures", "6 to 12 pictures", "2 seeds", "2 seeds, 6 pictures"."""
        parts = [] if self.seeds is None else [f"{self.seeds} seed{'s' * (self.seeds != 1)}"]
        if self.pictures is not None:
            fewest, most = self.pictures
            parts.append(f"{most} picture{'s' * (most != 1)}" if fewest == most else f"{fewest} to {most} pictures")
        return ", ".join(parts)


def scored_on(row: Row, key: str) -> list[Names]:
    """Return the distinct sets of pictures that the arm's seeds were scored on in a metric; empty where no table of pictures says so.

    A figure without a value per picture (FID) rests on all pictures of the table.
    """
    tables = [run.per_image for run in row.done if run.per_image and as_number(run.result.get(key)) is not None]
    return list(dict.fromkeys(_names(table, key) for table in tables))


def _names(table: Mapping[str, Mapping[str, float]], key: str) -> Names:
    return frozenset(name for name, values in table.items() if as_number(values.get(key)) is not None) or frozenset(table)


def take_part(arms: Sequence[Row], key: str) -> list[bool]:
    """Tell, arm by arm, whether its mean may be called the best: those scored on the largest set of pictures that an arm has, and those of
    which nothing is known. An arm alone with its pictures is compared with none, so it is not the best of several either."""
    there = [as_number(arm.figures.get(key)) is not None for arm in arms]
    sets = [scored_on(arm, key) if has else [] for arm, has in zip(arms, there, strict=True)]
    whole = Counter(own[0] for own in sets if len(own) == 1)
    largest = max(whole, key=lambda names: (len(names), whole[names]), default=None)
    chosen = [has and (not own or own == [largest]) for has, own in zip(there, sets, strict=True)]
    return [False] * len(arms) if sum(chosen) == 1 < sum(there) else chosen


def what_is_behind(arms: Sequence[Row], metrics: Sequence[Metric]) -> dict[tuple[str, str], Behind]:
    """Return (arm label, metric key) -> what stands behind the figure, where arms differ in their pictures or a seed has no figure."""
    found = {}
    for metric in metrics:
        sets = {arm.label: scored_on(arm, metric.key) for arm in arms}
        differ = len({names for own in sets.values() for names in own}) > 1
        for arm in arms:
            sizes = [len(names) for names in sets[arm.label]] if differ else []
            missing = len(_without_figure(arm, metric.key))
            one = Behind((min(sizes), max(sizes)) if sizes else None, len(arm.done) - missing if missing else None)
            if str(one):
                found[arm.label, metric.key] = one
    return found


def _without_figure(arm: Row, key: str) -> list[Run]:
    """Return the finished seeds that lack a finite figure which others of the arm have."""
    without = [run for run in arm.done if as_number(run.result.get(key)) is None]
    return without if len(without) < len(arm.done) else []


def seeds_notes(arms: Sequence[Row], metrics: Sequence[Metric]) -> list[str]:
    """Return a line for each arm and set of its seeds that lack figures, with the metrics that it concerns."""
    titles: dict[tuple[str, str], list[str]] = {}
    for arm in arms:
        for metric in metrics:
            if without := _without_figure(arm, metric.key):
                seeds = ", ".join(str(run.name if run.seed is None else run.seed) for run in without)
                titles.setdefault((arm.label, f"seed {seeds}"), []).append(metric.title)
    counts = {arm.label: len(arm.done) for arm in arms}
    return [
        f"'{label}': {seeds} (of {counts[label]}) has no finite {', '.join(names)}; means, intervals and differences are the others'."
        for (label, seeds), names in titles.items()
    ]


def pictures_notes(arms: Sequence[Row], metrics: Sequence[Metric]) -> list[str]:
    """Return a line for each way in which the arms were scored on different pictures, with the metrics that it concerns."""
    titles: dict[str, list[str]] = {}
    for metric in metrics:
        if listed := _sets_in_words(arms, metric.key):
            none = metric.better != "unknown" and not any(take_part(arms, metric.key))
            end = "no best is marked" if none else "the best is marked among the arms of the largest set"
            titles.setdefault(f"{listed}: these means do not compare, and {end}.", []).append(metric.title)
    return [f"The arms are scored on different pictures in {', '.join(names)}: {line}" for line, names in titles.items()]


def _sets_in_words(arms: Sequence[Row], key: str) -> str:
    """Return "12 pictures: A, C; 6 pictures: B", or "" where all were scored on the same ones."""
    groups: dict[tuple[Names, ...], list[str]] = {}
    for arm in arms:
        if own := scored_on(arm, key):
            groups.setdefault(tuple(own), []).append(arm.label)
    if len(groups) < 2 and all(len(own) == 1 for own in groups):
        return ""
    parts, sizes = [], set()
    for sets, labels in sorted(groups.items(), key=lambda group: -max(map(len, group[0]))):
        count = str(Behind((min(map(len, sets)), max(map(len, sets)))))
        parts.append(f"{count.replace('picture', 'other picture') if count in sizes else count}: {_listed(labels)}")
        sizes.add(count)
    return "; ".join(parts)


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    return ", ".join(labels[:_MOST_LABELS]) + more
