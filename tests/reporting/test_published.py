"""The published rows, and the table that sets measured ones beside them."""

from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from osediff_exp.reporting.evaluation_table import EvaluationTable, MeasuredRow, print_table, to_csv, to_markdown
from osediff_exp.reporting.figures import metrics_of
from osediff_exp.reporting.published import published_complexity, published_rows, published_set_size

MEASURED = (
    MeasuredRow("ours", 100, {"psnr": 25.0, "niqe": 5.0, "st_lpips": 0.2}, steps=15),
    MeasuredRow("bicubic", 100, {"psnr": 27.123456, "niqe": 9.0}),
    MeasuredRow("half", 50, {"psnr": 30.0, "niqe": 4.0}),
)


def make_table(dataset: str = "RealSR", num_images: int = 100) -> EvaluationTable:
    return EvaluationTable(dataset=dataset, num_images=num_images, measured=MEASURED, notes=["a note"])


@pytest.mark.parametrize("dataset", ["RealSR", "drealsr", "DIV2K-Val"])
def test_each_test_set_has_seven_methods_with_nine_figures(dataset: str) -> None:
    rows = published_rows(dataset)
    assert [(row.method, row.steps) for row in rows] == [
        ("StableSR", 200),
        ("DiffBIR", 50),
        ("SeeSR", 50),
        ("PASD", 20),
        ("ResShift", 15),
        ("SinSR", 1),
        ("OSEDiff", 1),
    ]
    assert all(list(row.figures) == ["psnr", "ssim", "lpips", "dists", "fid", "niqe", "musiq", "maniqa", "clipiqa"] for row in rows)


def test_the_papers_own_figures_on_realsr() -> None:
    own = published_rows("RealSR")[-1]
    assert list(own.figures.values()) == [25.15, 0.7341, 0.2921, 0.2128, 123.49, 5.6476, 69.09, 0.6326, 0.6693]
    assert published_rows("mine") == []
    assert (published_set_size("RealSR"), published_set_size("mine")) == (100, None)


def test_the_papers_own_complexity() -> None:
    own = published_complexity()[-1]
    assert (own.method, own.steps) == ("OSEDiff", 1)
    assert own.figures == {"time_s_a100": 0.11, "macs_g": 2265, "params_m": 1775, "trainable_m": 8.5}


def test_csv_holds_measured_rows_then_published_ones() -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(make_table()))))
    assert [line["method"] for line in lines[:4]] == ["ours", "bicubic", "half", "StableSR"]
    assert [line["origin"] for line in lines] == ["measured"] * 3 + ["published"] * 7
    assert [line["steps"] for line in lines[:2]] == ["15", ""]
    assert (lines[1]["psnr"], lines[1]["lpips"], lines[1]["num_images"]) == ("27.1235", "", "100")
    assert (lines[-1]["niqe"], lines[-1]["st_lpips"], lines[-1]["steps"]) == ("5.6476", "", "1")


def test_the_best_measured_figures_are_marked_among_rows_of_all_pictures() -> None:
    lines = to_markdown(make_table()).splitlines()
    ours, bicubic, half = (next(line for line in lines if line.startswith(f"| {label}")) for label in ("ours", "bicubic", "half"))
    assert ("**27.12**" in bicubic, "**5.000**" in ours, "**0.2000**" in ours) == (True, True, True)
    assert "**" not in half
    assert ours.startswith("| ours | 15 | 100 |")
    assert bicubic.startswith("| bicubic |  | 100 |")
    assert "| SinSR (published) | 1 | 100 | 26.28 |" in "\n".join(lines)


def test_a_row_that_lacks_pictures_is_not_the_best_even_where_all_lack_some() -> None:
    psnr, niqe = metrics_of([{"psnr": 1.0, "niqe": 1.0}])
    rows = [MeasuredRow("a", 100, {"psnr": 25.0, "niqe": 4.0}, lacking=["niqe"]), MeasuredRow("b", 100, {"psnr": 24.0, "niqe": 5.0})]
    table = EvaluationTable(dataset="mine", num_images=100, measured=rows)
    assert (table.best(psnr), table.best(niqe)) == ({0}, {1})
    fewer = EvaluationTable(dataset="mine", num_images=100, measured=[MeasuredRow(name, 99, {"psnr": 25.0}) for name in "ab"])
    assert fewer.best(psnr) == set(), "each may lack another picture"


def test_the_table_says_what_the_published_rows_are_and_when_they_do_not_compare() -> None:
    remarks = make_table().remarks()
    assert remarks[0] == "a note"
    assert "arXiv 2406.08177v3, Table 1" in remarks[1]
    assert len(remarks) == 2
    assert "Measured on 8 pictures, published on 100" in make_table(num_images=8).remarks()[-1]


def test_a_set_without_published_rows_shows_the_measured_ones_alone() -> None:
    table = make_table("mine")
    assert [metric.key for metric in table.metrics] == ["psnr", "st_lpips", "niqe"]
    assert table.remarks() == ["a note"]
    assert to_csv(table).count("published") == 0


def test_a_figure_that_is_no_known_metric_gets_a_column() -> None:
    table = EvaluationTable(dataset="mine", num_images=1, measured=[MeasuredRow("ours", 1, {"psnr": 25.0, "wonder": 0.5})])
    assert [metric.key for metric in table.metrics] == ["psnr", "wonder"]
    assert "0.5000" in to_markdown(table)


def printed(width: int, *, terminal: bool) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    print_table(make_table(), console, seconds={"ours": 0.25})
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_narrow_terminal_gets_several_tables_and_no_figure_is_cut() -> None:
    text = printed(80, terminal=True)
    assert max(map(len, text.splitlines()[:12])) <= 80
    figures = [f"{value:.2f}" for row in published_rows("RealSR") for value in (row.figures["psnr"], row.figures["fid"])]
    assert all(figure in text for figure in figures)
    assert "…" not in text
    assert text.count("method") >= 2


def test_a_pipe_gets_one_wide_table() -> None:
    text = printed(80, terminal=False)
    assert text.count("┃ method") == 1
    assert "…" not in text
    assert "0.25" in text
