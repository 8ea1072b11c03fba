from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from PIL import Image
from sweep_folders import config, crops, make_run, make_sweep, result

from osediff_exp.errors import UserError
from osediff_exp.reporting.commands import run_command
from osediff_exp.reporting.comparison import ReportSettings, compare
from osediff_exp.reporting.figures import best, metrics_of, show_figure
from osediff_exp.reporting.pictures import choose_pictures
from osediff_exp.reporting.writing import write_comparison

if TYPE_CHECKING:
    from pathlib import Path


def table(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_gives_back_every_figure_exactly(tmp_path: Path) -> None:
    figures = result(25.123456789012345, 0.1 + 0.2, 5.02, 0.291)
    make_run(tmp_path, 0, ["lambda2=0"], result=figures, config=config(lambda2=0))
    make_run(tmp_path, 1, ["lambda2=1"], result=result(25, 0.7, 5, 0.3), config=config(lambda2=1))
    write_comparison(tmp_path)
    first, second, reference = table(tmp_path)
    for key, value in figures.items():
        if not key.startswith("bicubic_"):
            assert type(value)(first[key]) == value
            assert first[key] == str(value)
    assert (first["arm"], first["lambda2"], second["lambda2"]) == ("lambda2=0", "0", "1")
    assert list(first)[:3] == ["arm", "status", "lambda2"]
    assert (reference["arm"], reference["status"], float(reference["psnr"])) == ("bicubic", "reference", 23.5)


def test_every_arm_has_a_row_whatever_became_of_it(tmp_path: Path) -> None:
    write_comparison(make_sweep(tmp_path))
    rows = table(tmp_path)
    assert [row["arm"] for row in rows] == ["without VSD", "with VSD", "lambda2=8", "lambda2=2", "bicubic"]
    assert [row["status"] for row in rows] == ["done", "done", "failed", "unfinished", "reference"]
    assert rows[2]["error"].endswith("lower lambda2")
    assert rows[3]["psnr"] == ""


def test_a_sweep_in_which_nothing_finished_is_still_reported(tmp_path: Path) -> None:
    make_run(tmp_path, 0, ["a=1"], error="no space left")
    make_run(tmp_path, 1, ["a=2"])
    comparison = write_comparison(tmp_path)
    assert [row["status"] for row in table(tmp_path)] == ["failed", "unfinished"]
    assert "no space left" in comparison.page.read_text()
    assert not comparison.grid.exists()


def test_a_config_key_named_like_a_figure_keeps_its_own_column(tmp_path: Path) -> None:
    for number, steps in enumerate((100, 200)):
        make_run(tmp_path, number, [f"steps={steps}"], result=result(25, 0.7, 5, 0.3, steps=7), config=config(steps=steps))
    write_comparison(tmp_path)
    assert [(row["config.steps"], row["steps"]) for row in table(tmp_path)[:2]] == [("100", "7"), ("200", "7")]


def test_best_follows_the_metrics_direction_and_ignores_bicubic_and_nan() -> None:
    psnr, niqe = metrics_of([{"psnr": 1.0, "niqe": 1.0, "seconds": 3}])
    assert best(psnr, [25.0, 26.0, math.nan, None]) == {1}
    assert best(niqe, [5.0, 6.0, math.nan, "x", True]) == {0}
    assert best(psnr, [25.151, 25.149, 25.0]) == {0, 1}, "what looks the same shares the mark"
    assert best(psnr, [None, math.inf]) == set()


def test_unknown_figures_with_a_bicubic_twin_are_metrics_without_a_direction() -> None:
    metrics = metrics_of([{"sharpness": 2.0, "bicubic_sharpness": 1.0, "psnr": 3.0, "memory": 5}])
    assert [(metric.key, metric.better) for metric in metrics] == [("psnr", "higher"), ("sharpness", "unknown")]
    assert best(metrics[1], [1.0, 2.0]) == set()


def test_markdown_marks_the_best_and_lists_failures_command_and_commit(tmp_path: Path) -> None:
    text = write_comparison(make_sweep(tmp_path)).markdown.read_text()
    assert "| without VSD | **25.94** | **0.7410** | 0.3420 | 6.310 | 600 |" in text
    assert "| with VSD | 25.15 | 0.7341 | **0.2910** | **5.020** |" in text
    assert "| bicubic | 23.50 | 0.6600 | 0.4100 | 8.100 |" in text
    assert "- lambda2=8: failed: lambda2=8 diverged" in text
    assert "- lambda2=2: unfinished: last logged at step 20; last wrote anything at 20" in text
    assert "    python -m osediff_exp -m +experiment=vsd_ablation lambda2=0,1,8,2" in text
    assert "commit 1a2b3c4" in text
    assert "(<comparison_grid.png>)" in text
    assert r"Does \<VSD\> & friends help?" in text


def test_arms_tested_on_different_inputs_have_their_own_references(tmp_path: Path) -> None:
    make_run(tmp_path, 0, ["degradation=light"], result=result(26, 0.7, 5, 0.3, bicubic_psnr=24.0), pictures=crops(1))
    other = {"astronaut_00": crops(2)["coffee_01"]}
    make_run(tmp_path, 1, ["degradation=heavy"], result=result(25, 0.7, 5, 0.3, bicubic_psnr=22.0), pictures=other)
    comparison = write_comparison(tmp_path)
    assert [row.label for row in comparison.references] == ["bicubic (degradation=light)", "bicubic (degradation=heavy)"]
    page = comparison.page.read_text()
    assert "LQ: degradation=light" in page
    assert "LQ: degradation=heavy" in page


def test_settings_given_by_hand_come_before_those_of_the_runs_field_by_field(tmp_path: Path) -> None:
    make_sweep(tmp_path)
    assert compare(tmp_path).title == "What VSD does"
    other = compare(tmp_path, ReportSettings(title="Other"))
    assert (other.title, other.question, other.arms[0].label) == ("Other", "Does <VSD> & friends help?", "without VSD")


def test_without_settings_title_and_question_are_made_from_the_sweep(tmp_path: Path) -> None:
    for rank in (2, 4):
        make_run(tmp_path, rank, [f"rank={rank}", f"lr={rank}"])
    comparison = compare(tmp_path)
    assert comparison.title == "Comparison of 2 arms"
    assert comparison.question == "What does changing rank and lr do to the restored pictures?"


def test_the_command_of_one_arm_does_not_start_the_sweep_again(tmp_path: Path) -> None:
    runs = [row.run for row in compare(make_sweep(tmp_path)).arms]
    assert runs[0] is not None
    assert run_command(runs[0]) == "python -m osediff_exp +experiment=vsd_ablation lambda2=0 hydra.mode=RUN"


def test_a_report_can_be_written_over_and_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_comparison(make_sweep(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    assert set(before) == {"multirun.yaml", "comparison.csv", "comparison.md", "comparison.tex", "comparison_grid.png", "report.html"}
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_comparison(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_the_grid_holds_the_pictures_pixel_for_pixel(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, pictures=2)
    write_comparison(sweep)
    grid = Image.open(io.BytesIO((sweep / "comparison_grid.png").read_bytes()))
    gap, cell, columns = 6, 128, 6
    assert grid.width == gap + columns * (cell + gap)
    top = grid.height - 2 * (cell + gap)
    hq = grid.crop((grid.width - cell - gap, top, grid.width - gap, top + cell))
    assert hq.tobytes() == crops(1)["astronaut_00"].tobytes()


def test_an_input_that_is_the_bicubic_enlargement_itself_is_shown_once(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path, pictures=1)
    for path in sweep.glob("*/images/bicubic/*.png"):
        (path.parents[1] / "lq" / path.name).write_bytes(path.read_bytes())
    titles = [column.title for column in choose_pictures(compare(sweep).arms).columns]
    assert titles == ["LQ (bicubic)", "without VSD", "with VSD", "lambda2=2 (step 100)", "HQ (original)"]


def test_figures_are_written_for_people() -> None:
    assert [show_figure("seconds", value) for value in (3.21, 75, 7325)] == ["3.21 s", "1 min 15 s", "2 h 02 min"]
    assert [show_figure("n", value) for value in (4437000, 3.21749, None, "cpu")] == ["4,437,000", "3.217", "-", "cpu"]


def test_reports_need_no_torch(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import osediff_exp.reporting.hydra_callback
import osediff_exp.tasks.report
from osediff_exp.reporting.writing import write_comparison
write_comparison(Path(sys.argv[1]))
sys.exit(bool({"torch", "lightning", "pytorch_lightning"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", code, str(make_sweep(tmp_path))], check=False).returncode == 0


def test_the_report_task_names_the_missing_setting_and_counts_the_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from omegaconf import OmegaConf

    from osediff_exp.tasks.report import run

    for absent in (None, "???"):
        with pytest.raises(UserError, match="runs is not set"):
            run(OmegaConf.create({"runs": absent}), tmp_path)
    with pytest.raises(UserError, match="holds '3': write runs=PATH or"):
        run(OmegaConf.create({"runs": ["a", 3]}), tmp_path)
    sweep = make_sweep(tmp_path / "sweep")
    settings = {"runs": str(sweep), "target": "html", "report": {"title": None, "labels": {"lambda2=0": "[bold]none"}}}
    figures = run(OmegaConf.create(settings), tmp_path)
    counts = {"done": 2, "partial": 0, "failed": 1, "unfinished": 1, "runs_never_started": 0}
    assert figures == {"task": "report", "arms": 4, **counts, "report": str(sweep / "report.html")}
    assert "[bold]none" in capsys.readouterr().out


def test_a_run_that_did_part_of_its_job_counts_and_shows_its_line(tmp_path: Path) -> None:
    make_run(tmp_path, 0, ["a=0"], result=result(25, 0.7, 5, 0.3), config=config(a=0))
    make_run(tmp_path, 1, ["a=1"], result=result(26, 0.7, 5, 0.3), error="FID is missing: no weights", config=config(a=1))
    comparison = write_comparison(tmp_path)
    assert [row.status for row in comparison.arms] == ["done", "partial"]
    assert comparison.best["psnr"] == {1}, "its figures count"
    for path in (comparison.page, comparison.markdown, comparison.csv):
        assert "FID is missing: no weights" in path.read_text()


def test_runs_that_never_started_are_counted_and_the_command_that_goes_on_is_given(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    assert compare(sweep).never_started == [], "no sweep.json, nothing to miss"
    (sweep / "sweep.json").write_text('{"num_arms": 7}')
    overrides = {"hydra": ["hydra.mode=MULTIRUN", "hydra.sweep.dir=runs/x", "hydra.sweep.dir='/y/runs/x'"], "task": ["lambda2=0,1"]}
    (sweep / "multirun.yaml").write_text(json.dumps({"hydra": {"overrides": overrides}}))
    comparison = write_comparison(sweep)
    assert comparison.never_started == [4, 5, 6]
    assert comparison.command == "python -m osediff_exp -m lambda2=0,1"
    for path in (comparison.page, comparison.markdown):
        text = path.read_text()
        assert "3 runs never started (jobs 4, 5, 6)" in text
        assert "python -m osediff_exp -m lambda2=0,1 hydra.sweep.dir=runs/x" in text
        assert "finished runs are kept" in text


def test_a_name_of_an_arm_that_has_not_started_is_not_called_wrong(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    settings = ReportSettings(labels={"lambda2=5": "five"}, published={"five": "T1/RealSR/OSEDiff"})
    assert [note for note in compare(sweep, settings).notes if "five" in note or "lambda2=5" in note] != []
    (sweep / "sweep.json").write_text('{"num_arms": 7}')
    assert [note for note in compare(sweep, settings).notes if "five" in note or "lambda2=5" in note] == []
