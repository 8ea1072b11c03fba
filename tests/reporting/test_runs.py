from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sweep_folders import config, crops, make_run, make_sweep, result

from osediff_exp.reporting.run_folders import find_runs
from osediff_exp.reporting.runs import read_run

if TYPE_CHECKING:
    from pathlib import Path


def test_status_follows_the_files_of_the_run_folder(tmp_path: Path) -> None:
    runs = find_runs([make_sweep(tmp_path)]).runs
    assert [run.status for run in runs] == ["done", "done", "failed", "unfinished"]
    assert runs[2].error == "lambda2=8 diverged: the loss is not finite at step 40; lower lambda2"
    assert [run.last_step for run in runs] == [60, 60, 30, 20]


def test_runs_come_in_the_order_of_launch_not_of_text(tmp_path: Path) -> None:
    for number in (10, 2, 0, 1):
        make_run(tmp_path, number, [f"rank={number}"], result=result(25, 0.7, 5, 0.3))
    assert [run.overrides for run in find_runs([tmp_path]).runs] == [("rank=0",), ("rank=1",), ("rank=2",), ("rank=10",)]


def test_a_slash_in_an_override_makes_nested_folders_which_are_found(tmp_path: Path) -> None:
    make_run(tmp_path, 0, ["loss/terms=[mse]"], result=result(25, 0.7, 5, 0.3))
    make_run(tmp_path, 1, ["loss/terms=[mse,vsd]"], result=result(25, 0.7, 5, 0.3))
    assert [run.name for run in find_runs([tmp_path]).runs] == ["0_loss/terms=[mse]", "1_loss/terms=[mse,vsd]"]


def test_empty_and_damaged_cells_of_metrics_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, ["a=1"])
    (run / "metrics.csv").write_text("step,epoch,train/loss,val/psnr\n2,0,nan,\n1,0,0.5,\n,0,9,9\n3,0,oops,25.5\n")
    curves = read_run(run).curves
    assert set(curves) == {"train/loss", "val/psnr"}
    assert curves["val/psnr"] == [(3, 25.5)]
    assert curves["train/loss"][0] == (1, 0.5)
    assert math.isnan(curves["train/loss"][1][1])


def test_a_damaged_result_is_a_failure_that_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, ["a=1"])
    (run / "result.json").write_text('{"psnr": 2')
    read = read_run(run)
    assert (read.status, read.result) == ("failed", {})
    assert read.error.startswith("result.json cannot be read")


def test_an_unfinished_run_shows_its_latest_pictures(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, ["a=1"], config=config(), pictures=crops(1))
    later = run / "images" / "steps" / "001000"
    later.mkdir()
    (run / "images" / "steps" / "000100" / "astronaut_00.png").rename(later / "x.png")
    read = read_run(run)
    assert read.output_step == 1000
    assert read.pictures["output"] == {"x": later / "x.png"}


def test_pictures_are_final_only_of_a_run_with_a_result(tmp_path: Path) -> None:
    """Every validation writes images/output anew: what an interrupted or failed training left there is of some step."""
    for number, (figures, error) in enumerate([(result(25, 0.7, 5, 0.3), None), (None, None), (None, "interrupted")]):
        run = make_run(tmp_path, number, [f"a={number}"], config=config(), result=figures, error=error, pictures=crops(1), steps=20)
        read = read_run(run)
        assert (read.output_step, [path.parent.name for path in read.pictures["output"].values()]) == (
            (None, ["output"]) if figures else (100, ["000100"])
        )
    (run / "images" / "steps" / "000100" / "astronaut_00.png").unlink()  # as num_pictures=0 leaves it
    read = read_run(run)
    assert (read.output_step, [path.parent.name for path in read.pictures["output"].values()]) == (20, ["output"])
    (run / "metrics.csv").unlink()
    assert read_run(run).pictures["output"] == {}, "of an unknown step"


def test_figures_of_older_runs_have_todays_names(tmp_path: Path) -> None:
    run = make_run(tmp_path, 0, ["a=1"], result={"psnr_y": 25.0, "bicubic_ssim_y": 0.7, "my_psnr_y": 1.0})
    (run / "metrics.csv").write_text("step,val/psnr_y,val/bicubic_psnr_y\n1,24,23\n")
    (run / "per_image.csv").write_text("name,psnr_y,bicubic_ssim_y\nx,24,0.6\n")
    read = read_run(run)
    assert read.result == {"psnr": 25.0, "bicubic_ssim": 0.7, "my_psnr_y": 1.0}
    assert set(read.curves) == {"val/psnr", "val/bicubic_psnr"}
    assert read.per_image == {"x": {"psnr": 24.0, "bicubic_ssim": 0.6}}


def test_the_seed_is_that_of_the_config_else_of_the_command(tmp_path: Path) -> None:
    assert read_run(make_run(tmp_path, 0, ["seed=7"], config={"seed": 8})).seed == 8
    assert read_run(make_run(tmp_path, 1, ["+seed=7"])).seed == 7
    assert read_run(make_run(tmp_path, 2, ["a=1"])).seed is None
