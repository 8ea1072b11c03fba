"""What the W&B report of a sweep shows: question and table as text, then curves, bars, pictures and settings of the sweep's runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import wandb_workspaces.reports.v2 as wr
from wandb_workspaces import expr

from osediff_exp.reporting.markdown import render_markdown

if TYPE_CHECKING:
    from osediff_exp.reporting.comparison import Comparison

STEP = "trainer/global_step"
PICTURES = "val/pictures"
_LONGEST_TITLE = 128
_WIDTH, _COLUMNS = 24, 3  # of a panel grid, in W&B's units; panels beside each other
_MOST_RUN_SETS = 12  # every grid lists them all
_OPTIMIZATION = re.compile(r"train/(grad_norm|lr)/|train/images_per_second$")


def build_report(comparison: Comparison, *, project: str, entity: str, ids: Mapping[str, Sequence[str]]) -> wr.Report:
    """Return the report of the runs ``ids`` (arm's label -> W&B's ids of its runs); nothing is asked over the network.

    A run set without entity and project shows the runs of the report's own project; naming them would make W&B look the project up
    whenever the report is serialised.
    """
    keys = list(dict.fromkeys(key for row in comparison.arms for run in row.runs for key in run.curves))
    runs = _RunSets(run_sets(ids, comparison.baseline.label if comparison.baseline else None), seeds=comparison.has_seeds)
    return wr.Report(
        project=project,
        entity=entity,
        title=comparison.title[:_LONGEST_TITLE],
        description=comparison.question,
        width="fluid",
        blocks=[
            wr.MarkdownBlock(text=_text(comparison)),
            *runs.section("Final figures", [runs.bar(metric.key, f"{metric.title} {metric.arrow}") for metric in comparison.metrics]),
            *(block for title, chosen in sections(keys) for block in runs.section(title, [runs.line(key) for key in chosen])),
            *runs.section("Pictures: low quality, restored, original", [_pictures()]),
            *runs.section("Settings", [wr.RunComparer(diff_only="split", layout=wr.Layout(w=_WIDTH, h=12))]),
        ],
    )


def sections(keys: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Sort the columns of metrics.csv into validation, losses, each term's diagnostics, and optimization; empty sections are left out."""
    found: dict[str, list[str]] = {"Validation": [], "Losses": []}
    optimization = []
    for key in keys:
        prefix, _, name = key.partition("/")
        if _OPTIMIZATION.match(key):
            optimization.append(key)
        elif prefix == "val" and name.startswith("bicubic_"):
            continue  # the same at every step and in every arm: it stands in the table
        else:
            found.setdefault({"val": "Validation", "train": "Losses"}.get(prefix, f"Diagnostics: {prefix}"), []).append(key)
    return [(title, chosen) for title, chosen in [*found.items(), ("Optimization", optimization)] if chosen]


def run_sets(ids: Mapping[str, Sequence[str]], baseline: str | None) -> dict[str, list[str]]:
    """Return name -> ids of the sets that a reader can switch off: one per arm with its seeds; of many arms, baseline and the others."""
    if len(ids) <= _MOST_RUN_SETS:
        return {f"{label} (baseline)" if label == baseline else label: list(chosen) for label, chosen in ids.items()}
    others = [name for label, chosen in ids.items() if label != baseline for name in chosen]
    if baseline is None or baseline not in ids:
        return {"all arms": others}
    return {f"{baseline} (baseline)": list(ids[baseline]), "other arms": others}


class _RunSets:
    """The sweep's runs by arm, and panels that show one line or bar per arm: the mean over seeds and its standard error."""

    def __init__(self, ids: Mapping[str, list[str]], *, seeds: bool) -> None:
        self._ids = ids
        self._by_arm: dict[str, Any] = (
            {"groupby": wr.Config("arm"), "groupby_aggfunc": "mean", "groupby_rangefunc": "stderr"} if seeds else {}
        )

    def section(self, title: str, panels: list[Any]) -> list[Any]:
        """Return a heading and a grid; panels without a place of their own stand in rows."""
        for place, panel in enumerate(panels):
            if panel.layout == wr.Layout():
                side = _WIDTH // _COLUMNS
                panel.layout = wr.Layout(x=place % _COLUMNS * side, y=place // _COLUMNS * side, w=side, h=side)
        return [wr.H2(title), wr.PanelGrid(runsets=self._runsets(), panels=panels)] if panels else []

    def line(self, key: str) -> Any:
        return wr.LinePlot(title=key, x=STEP, y=[key], title_x="optimizer step", max_runs_to_show=100, **self._by_arm)

    def bar(self, key: str, title: str) -> Any:
        return wr.BarPlot(title=title.strip(), metrics=[key], max_bars_to_show=100, max_runs_to_show=100, **self._by_arm)

    def _runsets(self) -> list[Any]:
        # By id and not by arm or group: the library's filters read signs such as "=" even inside a quoted label.
        return [
            wr.Runset(
                name=name,
                filters=expr.And(expr.Metric("ID").isin(chosen)),
                order=[wr.OrderBy("Name", ascending=True)],
                pinned_columns=["tags:__ALL__"],
            )
            for name, chosen in self._ids.items()
        ]


def _pictures() -> Any:
    layout = wr.Layout(w=_WIDTH, h=14)
    return wr.MediaBrowser(media_keys=[PICTURES], mode="grid", grid_x_axis="run", grid_y_axis="index", layout=layout)


def _text(comparison: Comparison) -> str:
    """Return comparison.md without its title, which is the report's, and without links to files beside it."""
    parts = render_markdown(comparison, has_grid=False).split("\n\n")
    return "\n\n".join(part for part in parts if not part.startswith("# ") and f"]({comparison.page.name})" not in part).strip()
