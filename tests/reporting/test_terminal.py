from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from sweep_folders import config, make_run, make_seed_sweep, result

from osediff_exp.reporting.comparison import compare
from osediff_exp.reporting.terminal import print_comparison, summary_tables

if TYPE_CHECKING:
    from pathlib import Path


def printed(sweep: Path, width: int) -> str:
    text = io.StringIO()
    print_comparison(compare(sweep), Console(file=text, width=width))
    return text.getvalue()


def _arm_width(text: str) -> int:
    """The width of the first column: the first figure of the first arm ends its line's blanks there."""
    return next(line for line in text.splitlines() if line.startswith("terms=")).index(" ")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_neither_labels_nor_figures_are_cut(tmp_path: Path, width: int) -> None:
    for number in (0, 1):
        terms = f"[mse,perceptual,vsd,{'gan,' * 12}end{number}]"
        make_run(tmp_path, number, [f"loss/terms={terms}"], result=result(25.17, 0.7123, 15.125, 0.3456, fid=135.31), config=config())
    text = printed(tmp_path, width)
    assert "\u2026" not in text
    assert max(map(len, text.split("report: ")[0].splitlines())) <= width
    assert all(text.count(figure) >= 2 for figure in ("25.17", "0.7123", "15.125", "0.3456", "135.31", "12 min 34 s"))
    column = "".join(line[: _arm_width(text)].strip() for line in text.split("bicubic")[0].splitlines())
    assert all(f"terms=[mse,perceptual,vsd,{'gan,' * 12}end{number}]" in column for number in (0, 1))


def test_where_it_is_narrow_intervals_stand_below_the_means(tmp_path: Path) -> None:
    make_seed_sweep(tmp_path)
    assert "0.7367 \u00b1 0.0089" in printed(tmp_path, 120)
    narrow = printed(tmp_path, 80).splitlines()
    means = next(line for line in narrow if line.startswith("without VSD"))
    below = narrow[narrow.index(means) + 1]
    assert "0.7367" in means
    assert means.index("0.7367") + 6 == below.index("\u00b1 0.0089") + 8


def test_many_metrics_make_several_tables_and_each_names_the_arms(tmp_path: Path) -> None:
    more = {"dists": 0.2, "fid": 135.3, "musiq": 65.2, "maniqa": 0.6, "clipiqa": 0.6, "lpips": 0.3}
    make_run(tmp_path, 0, ["a=1"], result=result(25, 0.7, 5, 0.3, **more))
    comparison = compare(tmp_path)
    assert len(summary_tables(comparison, 160)) == 1
    assert [len(table.columns) for table in summary_tables(comparison, 60)] == [7, 6]
