"""Means over different pictures: no arm is called the best of what was not compared, and every kind of report says so."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from rich.console import Console
from sweep_folders import config, make_run

from osediff_exp.reporting.arms import Row, make_arm
from osediff_exp.reporting.comparison import compare
from osediff_exp.reporting.figures import metrics_of
from osediff_exp.reporting.page_cards import cards
from osediff_exp.reporting.runs import Run
from osediff_exp.reporting.scored import Behind, pictures_notes, seeds_notes, take_part, what_is_behind
from osediff_exp.reporting.terminal import print_comparison
from osediff_exp.reporting.writing import write_comparison

PSNR, NIQE, FID = metrics_of([{"psnr": 1.0, "niqe": 1.0, "fid": 1.0}])
HARD, EASY = [20.0, 21.0, 22.0], [29.0, 30.0, 31.0]


def arm(label: str, *seeds: dict[str, float], **more: float) -> Row:
    """An arm with one run per table of PSNR by picture; ``more`` are further figures of the runs."""
    return make_arm(label, tuple(one_run(f"{label}{k}", k, table, more) for k, table in enumerate(seeds)), {})


def one_run(name: str, seed: int, table: dict[str, float], more: dict[str, float]) -> Run:
    mean = sum(table.values()) / len(table) if table else 25.0
    per_image = {picture: {"psnr": value} for picture, value in table.items()}
    return Run(Path(name), name, "done", (f"seed={seed}",), result={"psnr": mean} | more, per_image=per_image)


def pictures(*values: float, first: int = 0) -> dict[str, float]:
    return {f"p{first + k}": value for k, value in enumerate(values)}


def test_only_arms_scored_on_the_largest_set_can_be_the_best() -> None:
    whole, worse, easy = (
        arm("whole", pictures(*HARD, *EASY)),
        arm("worse", pictures(*HARD, *EASY[:2], 30)),
        arm("easy", pictures(*EASY, first=3)),
    )
    assert take_part([whole, worse, easy], "psnr") == [True, True, False]
    assert take_part([whole, easy], "psnr") == [False, False], "one alone is the best of nothing"
    assert take_part([whole], "psnr") == [True]
    assert take_part([whole, easy, arm("unknown", {})], "psnr") == [True, False, True], "a run without a table of pictures"
    assert take_part([whole, arm("mixed", pictures(*HARD, *EASY), pictures(*EASY, first=3)), worse], "psnr") == [True, False, True]
    assert take_part([whole, arm("nothing", pictures(float("nan")))], "psnr") == [True, False]


def test_the_count_is_shown_and_noted_where_arms_differ_and_nowhere_else() -> None:
    arms = [arm("a", pictures(*HARD, *EASY)), arm("b", pictures(*EASY, first=3)), arm("c", pictures(*HARD, *EASY))]
    behind = what_is_behind(arms, [PSNR])
    assert {key: str(one) for key, one in behind.items()} == {
        ("a", "psnr"): "6 pictures", ("b", "psnr"): "3 pictures", ("c", "psnr"): "6 pictures",
    }  # fmt: skip
    assert pictures_notes(arms, [PSNR]) == [
        "The arms are scored on different pictures in PSNR-Y: 6 pictures: a, c; 3 pictures: b: these means do not compare, and the best is "
        "marked among the arms of the largest set."
    ]
    assert (what_is_behind([arms[0], arms[2]], [PSNR]), pictures_notes([arms[0], arms[2]], [PSNR])) == ({}, [])
    (note,) = pictures_notes([arm("a", pictures(*HARD)), arm("b", pictures(*EASY, first=3))], [PSNR])
    assert "3 pictures: a; 3 other pictures: b: these means do not compare, and no best is marked" in note


def test_a_figure_without_a_value_per_picture_rests_on_all_of_them() -> None:
    arms = [arm("a", pictures(*HARD, *EASY), fid=50.0), arm("b", pictures(*EASY, first=3), fid=40.0)]
    assert take_part(arms, "fid") == [False, False]
    assert str(what_is_behind(arms, [FID])["b", "fid"]) == "3 pictures"


def test_a_seed_without_a_figure_is_counted_and_named() -> None:
    runs = [one_run(f"a{seed}", seed, pictures(*HARD), {"niqe": 5.0}) for seed in (1, 2, 3)]
    runs[1].result.update(psnr=None, niqe=float("nan"))
    arms = [make_arm("a", tuple(runs), {}), arm("b", pictures(*HARD), pictures(*HARD), niqe=5.0)]
    assert {key: str(one) for key, one in what_is_behind(arms, [PSNR, NIQE]).items()} == {
        ("a", "psnr"): "2 seeds", ("a", "niqe"): "2 seeds",
    }  # fmt: skip
    assert seeds_notes(arms, [PSNR, NIQE]) == [
        "'a': seed 2 (of 3) has no finite PSNR-Y, NIQE; means, intervals and differences are the others'."
    ]
    assert str(Behind((6, 12), 1)) == "1 seed, 6 to 12 pictures"
    assert seeds_notes([arms[1]], [PSNR, NIQE]) == []


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """Arm 1 lacks the three hardest pictures, which makes its mean the highest; arms 0 and 2 have all."""
    for number, table in enumerate((pictures(*HARD, *EASY), pictures(*EASY, first=3), pictures(*HARD, *EASY[:2], 30.0))):
        mean = sum(table.values()) / len(table)
        error = "3 missing" if len(table) < 6 else None
        run = make_run(
            tmp_path, number, [f"pred={number}"], result={"psnr": mean, "task": "score"}, config=config(pred=number), error=error
        )
        with (run / "per_image.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["name", "psnr"], *table.items()])
    return tmp_path


def test_every_kind_of_report_leaves_a_partial_arm_unmarked_and_says_why(partial: Path) -> None:
    comparison = write_comparison(partial)
    assert comparison.best == {"psnr": {0}}
    assert [row.label for card in cards(comparison) for row in card.arms] == ["pred=0"]
    console = Console(record=True, width=200)
    print_comparison(comparison, console)
    markdown, page, latex, terminal = (
        comparison.markdown.read_text(),
        comparison.page.read_text(),
        comparison.latex.read_text(),
        console.export_text(),
    )
    assert "| **25.50** (6 pictures) |" in markdown
    assert "| 30.00 (3 pictures) |" in markdown
    assert r"\textbf{25.50} & {\scriptsize\,(6 pictures)}" in latex
    assert "30.00 (3 pictures)" in terminal
    assert page.count('<small class="muted">3 pictures</small>') == 1
    for text in (markdown, page, latex, terminal):
        assert "scored on different pictures in PSNR-Y" in text
    with comparison.csv.open(newline="") as file:
        assert [row["psnr_scored"] for row in csv.DictReader(file)] == ["6", "3", "6"]


def test_arms_on_the_same_pictures_are_shown_as_ever(partial: Path) -> None:
    (partial / "1_pred=1" / "per_image.csv").write_text((partial / "0_pred=0" / "per_image.csv").read_text())
    comparison = write_comparison(partial)
    assert (comparison.best, comparison.behind, comparison.notes) == ({"psnr": {1}}, {}, [])
    assert "psnr_scored" not in comparison.csv.read_text()
    assert json.loads((partial / "1_pred=1" / "result.json").read_text())["psnr"] == 30
    assert compare(partial).best == {"psnr": {1}}
