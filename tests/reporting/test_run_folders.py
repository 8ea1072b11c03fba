from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from sweep_folders import config, make_run, make_sweep, result

from osediff_exp.errors import UserError
from osediff_exp.reporting.comparison import compare
from osediff_exp.reporting.run_folders import find_runs
from osediff_exp.reporting.writing import write_comparison

if TYPE_CHECKING:
    from pathlib import Path


def single(parent: Path, name: str, overrides: list[str] | None = None, task: str = "train", **values: Any) -> Path:
    made = config(task={"name": task}, **values)
    return make_run(parent, 0, overrides or [], folder=name, result=result(25, 0.7, 5, 0.3) | {"task": task}, config=made)


def sweep(parent: Path, name: str, key: str = "lambda2", extra: list[str] | None = None) -> Path:
    folder = parent / name
    for value in (0, 1):
        made = config(**{key: value})
        make_run(folder, value, [f"{key}={value}", *(extra or [])], result=result(25 + value, 0.7, 5, 0.3), config=made)
    (folder / "multirun.yaml").write_text(yaml.safe_dump({"hydra": {"overrides": {"hydra": [], "task": [f"{key}=0,1"]}}}))
    return folder


def test_a_folder_of_sweeps_is_refused_with_their_names(tmp_path: Path) -> None:
    one = sweep(tmp_path, "a")
    with pytest.raises(UserError, match=f"holds one: give runs={one}$"):
        find_runs([tmp_path])
    two = sweep(tmp_path, "deeper/b")
    with pytest.raises(UserError, match="holds 2 sweeps") as raised:
        find_runs([tmp_path])
    assert str(one) in str(raised.value)
    assert str(two) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_single_runs_are_compared_and_those_of_other_tasks_left_out_and_told(tmp_path: Path) -> None:
    for name, task in (("2026-01-02", "train"), ("2026-01-01", "train"), ("2026-01-03", "report"), ("2026-01-04", "evaluate")):
        single(tmp_path, name, task=task)
    found = find_runs([tmp_path])
    assert [run.name for run in found.runs] == ["2026-01-01", "2026-01-02"]
    assert found.notes == ["Left out, as of another task: 2026-01-03 (report), 2026-01-04 (evaluate)."]


def test_a_sweep_over_any_task_is_taken_whole(tmp_path: Path) -> None:
    for name, task in (("0_a", "benchmark"), ("1_b", "score")):
        single(tmp_path, name, task=task)
    (tmp_path / "sweep.json").write_text(json.dumps({"num_arms": 4}))
    found = find_runs([tmp_path])
    assert ([run.task for run in found.runs], found.never_started, found.notes) == (["benchmark", "score"], [2, 3], [])


def test_a_single_run_is_a_report_of_one_arm_in_its_own_folder(tmp_path: Path) -> None:
    run = single(tmp_path, "half", ["lambda2=0.5"])
    comparison = write_comparison(run)
    assert [row.label for row in comparison.arms] == ["lambda2=0.5"]
    assert comparison.page == run / "report.html"
    assert "lambda2=0.5" in comparison.page.read_text()


def test_a_crashed_launcher_leaves_a_sweep_whose_line_is_shown(tmp_path: Path) -> None:
    sweep(tmp_path, "a")
    (tmp_path / "a" / "error.txt").write_text("sbatch: no such partition\n")
    comparison = write_comparison(tmp_path / "a")
    assert comparison.notes == ["The sweep's launcher failed: sbatch: no such partition"]
    assert comparison.notes[0] in comparison.markdown.read_text()
    empty = tmp_path / "b"
    empty.mkdir()
    (empty / "sweep.json").write_text("{}")
    (empty / "error.txt").write_text("out of nodes")
    with pytest.raises(UserError, match="no run folders in .*launcher failed: out of nodes"):
        find_runs([empty])


@pytest.mark.parametrize(
    ("task", "message"), [("report", "task=report, which has no figures"), ("doctor", "task=doctor, which has no figures")]
)
def test_a_run_without_figures_is_refused(tmp_path: Path, task: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_runs([single(tmp_path, "x", task=task)])
    with pytest.raises(UserError, match=f"no run folders in .* only of task={task}"):
        find_runs([tmp_path])


def test_wrong_folders_are_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folders"):
        find_runs([tmp_path])
    with pytest.raises(UserError, match="does not exist"):
        find_runs([tmp_path / "nowhere"])


def test_several_folders_are_one_comparison_in_a_folder_of_its_own(tmp_path: Path) -> None:
    picked = [make_sweep(tmp_path / "vsd"), sweep(tmp_path, "rank", "rank"), single(tmp_path, "half", ["lambda2=0.5"])]
    out = tmp_path / "out"
    out.mkdir()
    before = {folder: sorted(folder.rglob("*")) for folder in picked}
    comparison = write_comparison(picked, out_dir=out)
    assert [row.label for row in comparison.arms] == [
        "without VSD",
        "with VSD",
        "lambda2=8",
        "lambda2=2",
        "rank=0",
        "rank=1",
        "lambda2=0.5",
    ]
    assert comparison.title == "What VSD does"
    assert comparison.page.parent == out
    assert "command-of" in comparison.page.read_text()
    assert {folder: sorted(folder.rglob("*")) for folder in picked} == before
    assert comparison.runs_argument == f"runs=[{','.join(map(str, picked))}]"


def test_equal_arms_of_two_sweeps_are_told_apart_by_overrides_else_by_folder(tmp_path: Path) -> None:
    one, two = sweep(tmp_path, "one", extra=["prompt=a"]), sweep(tmp_path, "two", extra=["prompt=b"])
    labels = [row.label for row in compare([one, two]).arms]
    assert labels == ["lambda2=0, prompt=a", "lambda2=1, prompt=a", "lambda2=0, prompt=b", "lambda2=1, prompt=b"]
    same = [sweep(tmp_path, "x/1"), sweep(tmp_path, "x/2")]
    assert [row.label for row in compare(same).arms] == ["lambda2=0 (1)", "lambda2=1 (1)", "lambda2=0 (2)", "lambda2=1 (2)"]


def test_a_run_given_twice_is_read_once_and_unstarted_jobs_are_told_by_folder(tmp_path: Path) -> None:
    one, other = sweep(tmp_path, "one"), sweep(tmp_path, "other")
    (other / "sweep.json").write_text(json.dumps({"num_arms": 3}))
    found = find_runs([one, one / "0_lambda2=0", other])
    assert [run.name for run in found.runs] == ["one/0_lambda2=0", "one/1_lambda2=1", "other/0_lambda2=0", "other/1_lambda2=1"]
    assert found.notes == ["other: 1 run never started (job 2)"]
    assert found.never_started == []
    assert compare([one / "0_lambda2=0", other], out_dir=tmp_path).runs_argument == f"runs=['{one / '0_lambda2=0'}',{other}]"
