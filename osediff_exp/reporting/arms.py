"""The arms of a sweep: runs that differ in nothing but their seed are one arm, its figures are means over the seeds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.figures import as_number
from osediff_exp.reporting.inputs import BICUBIC, agree, of_inputs
from osediff_exp.reporting.labels import CHECKPOINTS, flatten, names_own_folder, says_nothing, sets
from osediff_exp.reporting.statistics import Interval, mean_interval

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from osediff_exp.reporting.runs import Run

_WORST_FIRST = ("failed", "unfinished", "partial", "done")


@dataclass(frozen=True)
class Row:
    """A row of the table: an arm, or (no ``runs``) the bicubic reference. ``status`` of a reference is "reference".

    Attributes:
        label: what people call it.
        status: the worst of its seeds' (failed, unfinished, partial, done), or reference.
        figures: numbers are means over the finished seeds; texts that differ between seeds are joined by ", ".
        settings: config key -> value, for the keys in which the arms differ.
        runs: one per seed, in order of launch.
        intervals: figure -> mean and 95 % interval over the finished seeds.
        inputs: picture name -> figure -> value of a reference (an arm's stand in its runs).
        of: the run whose inputs a reference shows.
    """

    label: str
    status: str
    figures: dict[str, Any]
    settings: dict[str, str]
    runs: tuple[Run, ...] = ()
    intervals: dict[str, Interval] = field(default_factory=dict)
    inputs: dict[str, dict[str, float]] = field(default_factory=dict)
    of: Run | None = None

    @property
    def done(self) -> list[Run]:
        """The runs with figures: those that finished, and those that did part of their job."""
        return [run for run in self.runs if run.result]

    @property
    def run(self) -> Run | None:
        """The run that stands for the arm where one must (pictures, command): the first finished one, else the first."""
        return next(iter([*self.done, *self.runs]), None)

    @property
    def problems(self) -> list[Run]:
        """The runs that failed, did part of their job or have not finished."""
        return [run for run in self.runs if run.status != "done"]

    @property
    def steps(self) -> Any:
        """Training steps: of the result, else the last one logged."""
        return self.figures.get("steps", self.run.last_step if self.run else None)


def group_seeds(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Return the runs as arms, in order of launch; runs of one arm have the same overrides and config but for distinct seeds.

    Evaluations of networks that differ in their training's seed alone are one arm, where the restorer has one name: which checkpoints
    they name is no difference. A run without a seed, or with one that its arm already has (the same command twice), is an arm of its own:
    a repetition is no independent sample.
    """
    arms: list[list[Run]] = []
    for run in runs:
        arm = next((arm for arm in arms if _joins(run, arm)), None)
        if arm is None:
            arms.append([run])
        else:
            arm.append(run)
    return [tuple(arm) for arm in arms]


def without_seed(run: Run) -> Run:
    """Return the run with the seed taken from its overrides, and the checkpoints of one whose training is known: what names its arm."""
    chosen = CHECKPOINTS if run.training and run.restorer else ()
    return replace(run, overrides=tuple(text for text in run.overrides if not sets(text, "seed", *chosen)))


def make_arm(label: str, runs: tuple[Run, ...], settings: dict[str, str]) -> Row:
    """Return the row of an arm: status, figures and intervals from its runs."""
    statuses = {run.status for run in runs}
    status = next(status for status in _WORST_FIRST if status in statuses)
    results = [_outputs(run.result) for run in runs if run.result]
    keys = list(dict.fromkeys(key for result in results for key in result))
    columns = {key: [result[key] for result in results if key in result] for key in keys}
    numbers = {key: [number for value in values if (number := as_number(value)) is not None] for key, values in columns.items()}
    intervals = {key: mean_interval(values) for key, values in numbers.items() if values}
    figures = {key: _summary(values, intervals.get(key)) for key, values in columns.items()}
    return Row(label, status, figures, settings, runs, intervals)


def references(arms: Sequence[Row]) -> list[Row]:
    """Return one bicubic row for all arms, or one per group of arms where they were validated on different inputs."""
    groups: list[tuple[dict[str, Any], Run, str]] = []
    for arm in arms:
        for run in arm.done:
            figures = of_inputs(run.result)
            if figures and not any(agree(figures, known) for known, _, _ in groups):
                groups.append((figures, run, arm.label))
    named = [("bicubic" if len(groups) == 1 else f"bicubic ({label})", figures, run) for figures, run, label in groups]
    return [Row(label, "reference", figures, {}, inputs=_pictures_inputs(run), of=run) for label, figures, run in named]


def _pictures_inputs(run: Run) -> dict[str, dict[str, float]]:
    return {name: of_inputs(values) for name, values in run.per_image.items()}


def _joins(run: Run, arm: list[Run]) -> bool:
    if run.restorer != arm[0].restorer or run.seed is None or run.seed in [other.seed for other in arm]:
        return False
    if run.training != arm[0].training:
        return False
    own = ("seed", *CHECKPOINTS) if run.training else ("seed",)
    one, other = ({text for text in each.overrides if not sets(text, *own)} for each in (run, arm[0]))
    return one == other and _same_config(run, arm[0])


def _same_config(one: Run, other: Run) -> bool:
    """Whether the configs differ at most in what follows from the seed or from the run's own folder (a lost config fits any)."""
    if not (one.config and other.config):
        return True
    ours, theirs = flatten(one.config), flatten(other.config)
    changed = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key) and not says_nothing(key)]
    if one.training:
        changed = [key for key in changed if not _chooses_checkpoints(key, str(one.result.get("restorer")))]
    return all(_is_own(one, ours.get(key)) and _is_own(other, theirs.get(key)) for key in changed)


def _is_own(run: Run, value: Any) -> bool:
    return value == run.seed or names_own_folder(run, value)


def _chooses_checkpoints(key: str, label: str) -> bool:
    """Whether a key of an evaluation's config says which checkpoints it restores with; options of the restorer ``label`` do not."""
    top, _, rest = key.partition(".")
    if top == "restorers" and rest.startswith(f"{label}."):
        return rest == f"{label}.checkpoint"
    return top in CHECKPOINTS


def _outputs(result: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if not key.startswith(BICUBIC)}


def _summary(values: list[Any], interval: Interval | None) -> Any:
    if all(value == values[0] for value in values):
        return values[0]  # exactly as written: an int stays an int
    return ", ".join(dict.fromkeys(map(str, values))) if interval is None else interval.mean
