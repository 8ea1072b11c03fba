"""The same numbers in CSV, Markdown, LaTeX and the page."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from html import unescape
from typing import TYPE_CHECKING

import pytest
from sweep_folders import config, make_run, make_seed_sweep, result

from osediff_exp.reporting.comparison import Comparison, ReportSettings, compare
from osediff_exp.reporting.figures import show_p
from osediff_exp.reporting.latex import escape
from osediff_exp.reporting.writing import write_comparison

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    return write_comparison(make_seed_sweep(tmp_path_factory.mktemp("seeds")))


def test_csv_has_intervals_and_tests_in_full_precision(comparison: Comparison) -> None:
    with comparison.csv.open(newline="") as file:
        first, second, reference = csv.DictReader(file)
    interval = comparison.arms[1].intervals["psnr"]
    difference = comparison.differences["with VSD", "psnr"]
    assert (float(second["psnr"]), float(second["psnr_low"]), float(second["psnr_high"])) == (interval.mean, interval.low, interval.high)
    assert (float(second["psnr_difference"]), float(second["psnr_p_adjusted"])) == (difference.interval.mean, difference.p_adjusted)
    assert (second["psnr_images"], second["seeds"], second["folder"]) == ("12", "3", "3_vsd; 4_vsd; 5_vsd")
    assert first["psnr_difference"] == reference["psnr_low"] == reference["seeds"] == ""


def test_every_report_shows_the_same_mean_interval_and_p(comparison: Comparison) -> None:
    interval, difference = comparison.arms[1].intervals["psnr"], comparison.differences["with VSD", "psnr"]
    mean, half = f"{interval.mean:.2f}", f"{interval.half:.2f}"
    own = difference.interval
    shown = f"{own.mean:+.3f} [{own.low:+.3f}, {own.high:+.3f}]"
    parts = shown.split(" ", 1)
    markdown, latex, page = (path.read_text() for path in (comparison.markdown, comparison.latex, comparison.page))
    assert f"| with VSD | {mean} \u00b1 {half} |" in markdown
    assert shown in markdown.replace("\\", "")
    assert rf"with VSD & {mean} & {{\scriptsize\,$\pm$\,{half}}}$^{{-}}$ &" in latex
    assert re.search(rf"{mean}<span[^>]*>\S</span><small>&#177; {half}</small>", page)
    assert f"<b>{parts[0]}</b>" in page
    assert f"<small>{parts[1]}</small>" in page
    assert difference.p_adjusted == 2 / 2**12
    assert f"p {show_p(difference.p_adjusted)}, n = 12" in unescape(page)


def test_a_difference_never_stands_alone(comparison: Comparison) -> None:
    text = comparison.markdown.read_text().split("## Differences", 1)[1].split("## Published", 1)[0].replace("\\", "")
    cells = re.findall(r"[+-]\d+\.\d+ \[[^\]]+\], n = 12, p [=<] [\d.]+; 3 seeds: \[[^\]]+\]", text)
    assert len(cells) == len(comparison.metrics)


def test_one_seed_has_no_interval_and_the_table_says_so(tmp_path: Path) -> None:
    for number in (0, 1):
        make_run(tmp_path, number, [f"a={number}"], result=result(25, 0.7, 5, 0.3), config=config(a=number))
    comparison = write_comparison(tmp_path)
    for path in (comparison.markdown, comparison.page, comparison.latex):
        assert "no interval over seeds" in path.read_text()
    assert "\u00b1" not in comparison.markdown.read_text()


def test_arms_of_different_commits_are_pointed_out(tmp_path: Path) -> None:
    for number in (0, 1):
        make_run(tmp_path, number, [f"a={number}"], result=result(25, 0.7, 5, 0.3, commit=f"{number}" * 40), config=config(a=number))
    assert "different commits (0000000000, 1111111111)" in compare(tmp_path).notes[0]


def test_latex_is_balanced_and_escaped(tmp_path: Path, comparison: Comparison) -> None:
    text = comparison.latex.read_text()
    text = text.split(r"\end{table}", 1)[0]  # the second table has what was published
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    cells = [re.sub(r"\\multicolumn\{2\}\{c\}", "&", line).count("&") for line in rows]
    assert set(cells) == {2 * len(comparison.metrics)}, "mean and interval are columns of their own"
    assert escape(r"50% a_b & {c} $x^2$ \d #1 <~>") == (
        r"50\% a\_b \& \{c\} \$x\textasciicircum{}2\$ \textbackslash{}d \#1 \textless{}\textasciitilde{}\textgreater{}"
    )
    assert escape("[x] a--b \u03bb\u2192\u221e \u00e9\u00b2 \u65e5") == (
        r"{[}x{]} a-{}-b $\lambda$$\rightarrow$$\infty$ " + "\u00e9\u00b2 U+65E5"
    )
    make_run(tmp_path, 0, ["a=1"], result=result(25, 0.7, 5, 0.3))
    assert r"A \& B\_C?" in write_comparison(tmp_path, ReportSettings(title="A & B_C?")).latex.read_text()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex (apt install texlive-latex-extra)")
def test_the_latex_table_compiles_within_the_width_of_the_text(tmp_path: Path) -> None:
    names = {"lambda2=0": "[a_b] 50 % & #1 ~ ^ \\x {y} $z$ \u03bb\u2192 \u65e5", "lambda2=1": '*a--b <c> "d" | \u00e9'}
    table = write_comparison(make_seed_sweep(tmp_path), ReportSettings(title="50% of A_b & C?", labels=names)).latex.read_text()
    packages = "\n".join(re.findall(r"\\usepackage(?:\[\w+\])?\{\w+\}", table.split(r"\begin", 1)[0]))
    (tmp_path / "a.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{table}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=60, check=False)
    if "adjustbox.sty' not found" in done.stdout:
        pytest.skip("needs LaTeX's adjustbox (apt install texlive-latex-extra)")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout


def test_markdown_has_the_sections_of_the_page_in_short(comparison: Comparison) -> None:
    text = comparison.markdown.read_text()
    sections = ["Differences from without VSD", "Published values", "Cost", "Configurations", "Environment"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == sections
    assert "| `lambda2` | 0 | 1 |" in text
    assert "- Machine: 2 cores" in text


def test_p_values_are_written_for_people() -> None:
    assert [show_p(p) for p in (None, 0.0004, 0.0123, 0.049999, 0.35, 1.0)] == ["-", "< 0.001", "0.012", "0.05", "0.35", "1.00"]


def test_the_time_is_that_of_the_training_and_the_costs_have_both(tmp_path: Path) -> None:
    for number in (0, 1):
        figures = result(25, 0.7, 5, 0.3, seconds=19.0 - number, train_seconds=3.5)
        make_run(tmp_path, number, [f"a={number}"], result=figures, config=config(a=number))
    text = write_comparison(tmp_path).markdown.read_text()
    assert text.count("| Steps | Training |") == 1
    assert "| 600 | 3.5 s |" in text
    assert "| 3.5 s | 19 s |" in text


def test_a_run_that_went_on_cost_what_all_its_calls_did(tmp_path: Path) -> None:
    for number, before in enumerate((0.0, 30.0)):
        figures = result(25, 0.7, 5, 0.3, seconds=8.0, train_seconds=5.0 + before, train_seconds_before=before)
        make_run(tmp_path, number, [f"a={number}"], result=figures, config=config(a=number))
    text = write_comparison(tmp_path).markdown.read_text()
    assert "| 5 s | 8 s |" in text
    assert "| 35 s | 38 s |" in text
    assert "train_seconds_before" not in text


def test_runs_that_validated_nothing_are_told_from_unfinished_ones(tmp_path: Path) -> None:
    for number in (0, 1):
        make_run(tmp_path, number, [f"a={number}"], result={"task": "train", "seconds": 3.0, "steps": 4}, config=config(a=number))
    comparison = write_comparison(tmp_path)
    for text in (comparison.markdown.read_text(), comparison.page.read_text()):
        assert "The runs validated nothing, so there is nothing to compare: set data.val_root" in text
        assert "No arm has finished" not in text


def test_an_absent_setting_is_an_empty_cell(tmp_path: Path) -> None:
    for number, settings in enumerate(({"gan": {"weight": 0.1}}, {"other": 2})):
        make_run(tmp_path, number, [f"a={number}"], result=result(25, 0.7, 5, 0.3), config=config(**settings))
    comparison = write_comparison(tmp_path)
    with comparison.csv.open(newline="") as file:
        first, second, _ = csv.DictReader(file)
    assert (first["gan.weight"], second["gan.weight"], first["other"], second["other"]) == ("0.1", "", "", "2")
    assert "| `gan.weight` | 0.1 | - |" in comparison.markdown.read_text()
