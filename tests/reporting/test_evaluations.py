"""Evaluations of several restorers in a report: an arm for each, whichever the command names first; bicubic is their reference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from sweep_folders import make_run

from osediff_exp.reporting.comparison import ReportSettings, compare
from osediff_exp.reporting.writing import write_comparison

if TYPE_CHECKING:
    from pathlib import Path


def evaluation(folder: Path, number: int, means: dict[str, float | None], **more: Any) -> Path:
    """Write what task=evaluate does: the first restorer's figures bare, the others' behind their labels; None: it failed halfway."""
    first, *others = means
    figures: dict[str, Any] = {"task": "evaluate", "dataset": "t", "num_images": 6, "restorer": first, "restore_seconds": 1.0}
    figures |= {"psnr": means[first], "fid": 90.0, "method": "m", "color_fix": "none"} if means[first] is not None else {}
    for label in others:
        figures |= {f"{label}_psnr": means[label], f"{label}_fid": 80.0} if means[label] is not None else {}
        figures[f"{label}_restore_seconds"] = 2.0
    names = ",".join(means)
    settings = {"task": {"name": "evaluate"}, "restorers": list(means), "seed": 1} | more
    run = make_run(folder, number, [f"restorers=[{names}]"], result=figures, config=settings)
    lines = [f"{label},p{k},{(mean or 30.0) + k - 2.5}" for label, mean in means.items() for k in range(6 if mean is not None else 3)]
    (run / "per_image.csv").write_text("\n".join(["restorer,name,psnr", *lines]) + "\n")
    for label in means:
        (run / "images" / label).mkdir(parents=True)
        Image.new("RGB", (8, 8), (number, len(label), 0)).save(run / "images" / label / "p0.png")
    return run


def test_an_arm_s_cost_is_a_picture_s_and_no_evaluation_s(tmp_path: Path) -> None:
    run = evaluation(tmp_path, 0, {"a": 27.0, "b": 26.0})
    result = json.loads((run / "result.json").read_text()) | {"seconds": 500.0, "sampling_steps": 1, "b_sampling_steps": 10}
    (run / "result.json").write_text(json.dumps(result))
    write_comparison(run)
    first, *lines = [line for line in (run / "comparison.md").read_text().splitlines() if line.startswith("| ")]
    assert first.endswith("| Sampling steps | Seconds per image |")
    assert next(line for line in lines if line.startswith("| a ")).endswith("| 1 | 1 s |")
    assert next(line for line in lines if line.startswith("| b ")).endswith("| 10 | 2 s |")


def test_a_report_of_an_evaluation_leaves_the_evaluation_s_own_tables(tmp_path: Path) -> None:
    run = evaluation(tmp_path, 0, {"a": 27.0, "b": 26.0})
    (run / "comparison.md").write_text("with the published rows")
    (tmp_path / "report").mkdir()
    found = write_comparison([run], out_dir=tmp_path / "report")
    assert (run / "comparison.md").read_text() == "with the published rows"
    assert found.page.parent == tmp_path / "report"
    assert "6 test pictures" in found.page.read_text()


def test_what_one_restorer_lost_is_said_of_it_alone(tmp_path: Path) -> None:
    run = evaluation(tmp_path, 0, {"a": 27.0, "b": 26.0, "c": None})
    lost = "b lacks 1 pictures: p5; c failed: no memory"
    (run / "error.txt").write_text(f"evaluate: {lost}\n")
    result = json.loads((run / "result.json").read_text()) | {"lost": None}
    result |= {"b_lost_by_restorer": "lacks 1 pictures: p5", "c_lost_by_restorer": "failed: no memory"}
    (run / "result.json").write_text(json.dumps(result))
    assert [(row.label, row.status) for row in compare(run).arms] == [("a", "done"), ("b", "partial"), ("c", "failed")]
    assert [run.error for _, run in compare(run).problems] == ["lacks 1 pictures: p5", "failed: no memory"]
    (run / "result.json").write_text(json.dumps(result | {"lost": "2 pictures of the test set take no part"}))
    assert {row.status for row in compare(run).arms[:2]} == {"partial"}
    del result["lost"]  # as evaluations before this key
    (run / "result.json").write_text(json.dumps(result))
    assert {row.status for row in compare(run).arms} == {"partial"}


def test_bicubic_named_first_is_the_reference_and_no_arm(tmp_path: Path) -> None:
    for number, (label, mean) in enumerate((("a", 27.0), ("b", 25.0))):
        evaluation(tmp_path, number, {"bicubic": 24.0, label: mean})
    comparison = write_comparison(tmp_path)
    assert [(row.label, row.figures["psnr"]) for row in comparison.rows] == [
        ("restorers=[bicubic,a]", 27.0), ("restorers=[bicubic,b]", 25.0), ("bicubic", 24.0),
    ]  # fmt: skip
    assert comparison.differences["restorers=[bicubic,b]", "psnr"].interval.mean == pytest.approx(-2)
    assert [run.result["restorer"] for row in comparison.arms for run in row.runs] == ["a", "b"]
    assert [path.parent.name for row in comparison.arms for path in row.runs[0].pictures["output"].values()] == ["a", "b"]


def test_every_restorer_of_an_evaluation_is_an_arm_with_its_own_figures(tmp_path: Path) -> None:
    run = evaluation(tmp_path, 0, {"a": 27.0, "bicubic": 24.0, "a_2": 26.0, "c": None})
    comparison = compare(run)
    assert [row.label for row in comparison.rows] == ["a", "a_2", "c", "bicubic"]
    first, second, failed, bicubic = comparison.rows
    assert (first.figures["psnr"], first.figures["fid"], first.figures["restore_seconds"], first.figures["method"]) == (
        27.0,
        90.0,
        1.0,
        "m",
    )
    assert (second.figures["psnr"], second.figures["fid"], second.figures["restore_seconds"]) == (26.0, 80.0, 2.0)
    assert "method" not in second.figures
    assert not {"psnr", "fid"} & failed.figures.keys()
    assert bicubic.figures == {"psnr": 24.0, "fid": 80.0}
    assert {row.figures["num_images"] for row in comparison.arms} == {6}
    assert comparison.differences["a_2", "psnr"].interval.mean == pytest.approx(-1)
    assert comparison.best["fid"] == {1}
    named = compare(run, ReportSettings(labels={"a_2": "two steps"}))
    assert ([row.label for row in named.arms], named.notes) == (["a", "two steps", "c"], [])


def test_restorers_of_several_evaluations_are_told_apart_and_their_seeds_are_not_mixed(tmp_path: Path) -> None:
    for seed in (1, 2):
        for steps in (1, 4):
            run = evaluation(tmp_path, 2 * seed + steps, {"a": 27.0 + steps, "b": 26.0}, seed=seed, steps=steps)
            (run / ".hydra" / "overrides.yaml").write_text(f"[steps={steps}, seed={seed}]")
    arms = compare(tmp_path).arms
    assert [(row.label, len(row.runs)) for row in arms] == [("steps=1: a", 2), ("steps=1: b", 2), ("steps=4: a", 2), ("steps=4: b", 2)]


def test_bicubic_evaluated_alone_is_an_arm(tmp_path: Path) -> None:
    run = evaluation(tmp_path, 0, {"bicubic": 24.0})
    assert [row.figures["psnr"] for row in compare(run).arms] == [24.0]


def trained(tmp_path: Path, seed: int, *, key: str = "aa", steps: int = 4) -> Path:
    """An evaluation of networks of two trainings with ``seed``, as a user calls it: checkpoints by their paths."""
    run = evaluation(tmp_path / f"eval_{seed}", 0, {"one": 27.0 + seed, "many": 25.0, "outputs": 24.0})
    result = json.loads((run / "result.json").read_text())
    result |= {"training": "11", "training_seed": seed, "many_training": key, "many_training_seed": seed}
    (run / "result.json").write_text(json.dumps(result))
    restorers = f"{{many: {{checkpoint: runs_{seed}/many, steps: {steps}}}}}"
    (run / ".hydra" / "overrides.yaml").write_text(json.dumps(["task=evaluate", f"checkpoint=runs_{seed}/one", f"restorers={restorers}"]))
    config = {"task": {"name": "evaluate"}, "seed": 123, "checkpoint": f"runs_{seed}/one"}
    config |= {"restorers": {"many": {"checkpoint": f"runs_{seed}/many", "steps": steps}, "outputs": "outputs:x"}}
    (run / "config.yaml").write_text(json.dumps(config))
    return run


def test_networks_of_one_training_with_several_seeds_are_one_arm(tmp_path: Path) -> None:
    arms = compare([trained(tmp_path, 1), trained(tmp_path, 2)], out_dir=tmp_path / "out").arms
    assert [(row.label.partition(" (")[0], [run.seed for run in row.runs]) for row in arms] == [
        ("one", [1, 2]), ("many", [1, 2]), ("outputs", [123]), ("outputs", [123]),
    ]  # fmt: skip
    assert len({row.label for row in arms}) == 4
    assert arms[0].figures["psnr"] == 28.5
    assert arms[0].intervals["psnr"].low < 28 < 29 < arms[0].intervals["psnr"].high


def test_a_single_restorers_evaluations_join_too(tmp_path: Path) -> None:
    runs = []
    for seed in (1, 2):
        run = evaluation(tmp_path / f"eval_{seed}", 0, {"one": 27.0 + seed}, seed=123, checkpoint=f"runs_{seed}/one", restorers=None)
        result = json.loads((run / "result.json").read_text()) | {"training": "11", "training_seed": seed}
        (run / "result.json").write_text(json.dumps(result))
        (run / ".hydra" / "overrides.yaml").write_text(json.dumps(["task=evaluate", f"checkpoint=runs_{seed}/one"]))
        runs.append(run)
    assert [[run.seed for run in row.runs] for row in compare(runs, out_dir=tmp_path / "out").arms] == [[1, 2]]


def test_other_trainings_and_other_options_are_other_arms(tmp_path: Path) -> None:
    other = compare([trained(tmp_path / "a", 1), trained(tmp_path / "a", 2, key="bb")], out_dir=tmp_path / "out").arms
    assert [len(row.runs) for row in other if row.label.startswith("many")] == [1, 1]
    options = compare([trained(tmp_path / "b", 1), trained(tmp_path / "b", 2, steps=8)], out_dir=tmp_path / "out").arms
    assert [len(row.runs) for row in options if row.label.startswith("many")] == [1, 1]
    assert [len(row.runs) for row in options if row.label.startswith("one")] == [2]
