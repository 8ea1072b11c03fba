"""Comparing the arms of a sweep: every number of ``comparison.csv/.md/.tex`` and ``report.html`` is computed here, once; see writing.py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.arms import Row, group_seeds, make_arm, references, without_seed
from osediff_exp.reporting.commands import sweep_command
from osediff_exp.reporting.differences import Difference, choose_baseline, differences_from
from osediff_exp.reporting.figures import Metric, best, metrics_of
from osediff_exp.reporting.inputs import input_groups, inputs_note
from osediff_exp.reporting.labels import arm_labels, differing_config, differing_overrides, unused_names
from osediff_exp.reporting.paper_ablations import Published, published_for
from osediff_exp.reporting.run_folders import find_runs
from osediff_exp.reporting.runs import read_json
from osediff_exp.reporting.scored import Behind, pictures_notes, seeds_notes, take_part, what_is_behind
from osediff_exp.reporting.settings import ReportSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.runs import Run

__all__ = ["Comparison", "ReportSettings", "Row", "compare"]

_TIMES = {"train_seconds": "Training", "restore_seconds": "Seconds per image"}
"""The figure that is an arm's time, the first that there is, and its heading."""


@dataclass(frozen=True)
class Comparison:
    """A sweep's arms side by side, and the files that show them.

    Attributes:
        sweep_dir: the folder of the report's files: the sweep's own, or of several folders the one given for them.
        sources: the folders that were compared.
        title, question: as given by the report settings, or made from the sweep.
        rows: the arms in order of launch, then the bicubic reference (one per distinct set of inputs).
        metrics: the quality figures that any arm has.
        best: metric key -> places in ``rows`` of the best of the arms that were scored on the same pictures; the reference takes no part.
        behind: (arm label, metric key) -> the pictures behind a mean where arms differ in them, and its seeds where one has no figure.
        baseline: the row that arms are tested against (None: nothing to test).
        differences: (arm label, metric key) -> paired difference from the baseline.
        published: arm label -> what a paper printed for it.
        config_differences: config key -> value per arm.
        command: the command of the sweep ("" where unknown).
        go_on_command: the same with the folder that it was given, so that it goes on there.
        never_started: numbers of the sweep's jobs that have no folder yet.
        notes: lines about what is odd in the settings or the runs.
    """

    sweep_dir: Path
    sources: tuple[Path, ...]
    title: str
    question: str
    rows: list[Row]
    metrics: list[Metric]
    best: dict[str, set[int]]
    behind: dict[tuple[str, str], Behind]
    baseline: Row | None
    differences: dict[tuple[str, str], Difference]
    published: dict[str, Published]
    config_differences: dict[str, list[str]]
    command: str
    go_on_command: str
    never_started: list[int]
    notes: list[str]

    @property
    def arms(self) -> list[Row]:
        """The rows that are arms."""
        return [row for row in self.rows if row.runs]

    @property
    def references(self) -> list[Row]:
        """The rows that are bicubic references."""
        return [row for row in self.rows if not row.runs]

    @property
    def problems(self) -> list[tuple[Row, Run]]:
        """The runs that failed, did part of their job or have not finished, with their arm."""
        return [(row, run) for row in self.arms for run in row.problems]

    @property
    def has_seeds(self) -> bool:
        """Whether any arm has more than one seed."""
        return any(len(row.runs) > 1 for row in self.arms)

    @property
    def runs_argument(self) -> str:
        """What names the compared folders on the command line of ``task=report``, from any folder."""
        paths = [str(path.absolute()) for path in self.sources]
        quoted = [path if re.fullmatch(r"[\w./-]+", path) else f"'{path}'" for path in paths]
        return f"runs={quoted[0]}" if len(quoted) == 1 else f"runs=[{','.join(quoted)}]"

    @property
    def time_key(self) -> str:
        """The figure shown as an arm's time.

        That of the training alone, as the first arm of a process also loads the libraries; of evaluations, of which several arms may be one
        run, that of a picture.
        """
        present = {key for row in self.arms for key in row.figures}
        return next((key for key in _TIMES if key in present), "seconds")

    @property
    def time_title(self) -> str:
        """The heading of that figure."""
        return _TIMES.get(self.time_key, "Time")

    @property
    def steps_title(self) -> str:
        """The heading of :meth:`steps`."""
        return "Sampling steps" if self.time_key == "restore_seconds" else "Steps"

    def steps(self, row: Row) -> Any:
        """Return how many steps an arm trained; of an evaluation, how many it takes for a picture; None: not known."""
        return row.figures.get("sampling_steps") if self.time_key == "restore_seconds" else row.steps

    def behind_text(self, row: Row, metric: Metric) -> str:
        """Return what stands beside a mean to say what is behind it ("6 pictures"); "" where it is the same for all arms."""
        return str(self.behind.get((row.label, metric.key), ""))

    def time(self, row: Row) -> Any:
        """Return that figure of an arm, None where there is none."""
        return row.figures.get(self.time_key)

    @property
    def csv(self) -> Path:
        """The table for programs."""
        return self.sweep_dir / "comparison.csv"

    @property
    def markdown(self) -> Path:
        """The table for README files and issues."""
        return self.sweep_dir / "comparison.md"

    @property
    def latex(self) -> Path:
        """The table for papers."""
        return self.sweep_dir / "comparison.tex"

    @property
    def page(self) -> Path:
        """The page for people."""
        return self.sweep_dir / "report.html"

    @property
    def cost_plane(self) -> Path:
        """Quality against seconds per picture; written only where arms differ in what they cost."""
        return self.sweep_dir / "comparison_cost.svg"

    @property
    def grid(self) -> Path:
        """The validation pictures side by side; written only where there are any."""
        return self.sweep_dir / "comparison_grid.png"


def compare(folders: Path | Sequence[Path], settings: ReportSettings | None = None, out_dir: Path | None = None) -> Comparison:
    """Read the runs of a sweep, or of several folders, and set them side by side, without writing anything.

    What ``settings`` leaves empty is taken from the ``report`` part of the runs' own configs. ``out_dir`` is where the files of several
    folders' comparison go, and those of one evaluation, which has tables of these names itself; one other folder's go into itself.
    """
    sources = (folders,) if isinstance(folders, Path) else tuple(folders)
    into_itself = len(sources) == 1 and not _has_such_tables(sources[0])
    sweep_dir = sources[0] if into_itself or out_dir is None else out_dir
    found = find_runs(sources)
    runs = found.runs
    settings = (settings or ReportSettings()).or_else(_settings_of(runs))
    groups = group_seeds(runs)
    named = [without_seed(group[0]) if len(groups) > 1 or len(group) > 1 else group[0] for group in groups]
    labels = arm_labels(named, settings.labels)
    changed = differing_config(named)
    arms = [
        make_arm(label, group, {key: values[place] for key, values in changed.items()})
        for place, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]
    metrics = metrics_of(run.result for run in runs)
    inputs, tested = references(arms), input_groups(arms)
    baseline, odd = choose_baseline(arms, inputs, settings.baseline)
    published, misnamed = published_for(labels, settings.published)
    # A name may be an arm's that has not started, so only a whole sweep can tell which are wrong.
    misspelt = [] if found.never_started else [*unused_names(named, settings.labels), *misnamed]
    about_pictures = [*pictures_notes(arms, metrics), *seeds_notes(arms, metrics), inputs_note(tested)]
    notes = [*found.notes, *misspelt, odd, *about_pictures, _commits(runs), _repeated(arms)]
    return Comparison(
        sweep_dir=sweep_dir,
        sources=sources,
        title=settings.title or (f"Comparison of {len(arms)} arms" if len(arms) > 1 else "One arm, nothing to compare it with"),
        question=settings.question or (_question(named) if len(sources) == 1 else ""),
        rows=arms + inputs,
        metrics=metrics,
        best={metric.key: _best(metric, arms) if len(tested) < 2 else set() for metric in metrics},
        behind=what_is_behind(arms, metrics),
        baseline=baseline,
        differences=differences_from(baseline, arms, metrics),
        published=published,
        config_differences=changed,
        command=sweep_command(sources[0]) if len(sources) == 1 else "",
        go_on_command=sweep_command(sources[0], go_on=True) if len(sources) == 1 else "",
        never_started=found.never_started,
        notes=[note for note in notes if note],
    )


def _has_such_tables(folder: Path) -> bool:
    result = read_json(folder / "result.json")
    return isinstance(result, dict) and result.get("task") == "evaluate"


def _best(metric: Metric, arms: list[Row]) -> set[int]:
    values = [row.figures.get(metric.key) for row in arms]
    return best(metric, [value if part else None for value, part in zip(values, take_part(arms, metric.key), strict=True)])


def _settings_of(runs: list[Run]) -> ReportSettings:
    """Return what the runs' own configs say: of each folder the first one, where possible one whose references are resolved."""
    by_source: dict[str, ReportSettings] = {}
    nodes = [(run.source, run.config.get("report")) for run in runs if isinstance(run.config, dict)]
    for source, node in sorted(nodes, key=lambda pair: "${" in str(pair[1])):
        if node:
            by_source.setdefault(source, ReportSettings.of(node))
    return ReportSettings.shared([*by_source.values()]) if by_source else ReportSettings()


def _question(runs: list[Run]) -> str:
    keys = list(dict.fromkeys(text.split("=", 1)[0] for arm in differing_overrides(runs) for text in arm)) if len(runs) > 1 else []
    if not keys:
        return ""
    listed = " and ".join([", ".join(keys[:-1]), keys[-1]] if len(keys) > 1 else keys)
    return f"What does changing {listed} do to the restored pictures?"


def _commits(runs: list[Run]) -> str:
    commits = list(dict.fromkeys(str(run.result["commit"])[:10] for run in runs if run.result.get("commit")))
    return f"The runs come from different commits ({', '.join(commits)}): their code may differ." if len(commits) > 1 else ""


def _repeated(arms: list[Row]) -> str:
    """Say that seeds differ between arms: then part of a difference may be the seeds'."""
    seeds = {frozenset(run.seed for run in row.done) for row in arms if row.done}
    return "The arms have different finished seeds; paired differences use the seeds that two arms share." if len(seeds) > 1 else ""
