from __future__ import annotations

from pathlib import Path
from typing import Any

from osediff_exp.reporting.labels import arm_labels, differing_config, differing_overrides, in_short, unused_names
from osediff_exp.reporting.runs import Run


def runs(*overrides: list[str], configs: list[dict[str, Any]] | None = None) -> list[Run]:
    return [
        Run(Path(f"{i}_arm"), f"{i}_arm", "done", tuple(texts), config=configs[i] if configs else {}) for i, texts in enumerate(overrides)
    ]


def test_shared_overrides_and_plus_signs_do_not_name_an_arm() -> None:
    arms = runs(["+experiment=x", "+lambda2=0", "rank=4"], ["+experiment=x", "+lambda2=1", "rank=4"])
    assert differing_overrides(arms) == [("lambda2=0",), ("lambda2=1",)]
    assert arm_labels(arms, {}) == ["lambda2=0", "lambda2=1"]


def test_the_group_of_an_option_in_another_place_does_not_name_an_arm() -> None:
    arms = runs(["+degradation@val_degradation=light"], ["degradation@val_degradation=face"], ["input=a@b"])
    assert arm_labels(arms, {}) == ["val_degradation=light", "val_degradation=face", "input=a@b"]


def test_a_number_is_no_path_in_the_run_s_own_folder() -> None:
    configs = [{"lambda2": k, "out": f"sweep/{k}/checkpoints", "list": [f"/sweep/{k}"], "name": f"{k}_arm"} for k in range(3)]
    numbered = [Run(Path(f"sweep/{k}"), f"{k}", "done", (f"lambda2={k}",), config=configs[k]) for k in range(3)]
    assert differing_config(numbered) == {"lambda2": ["0", "1", "2"], "name": ["0_arm", "1_arm", "2_arm"]}
    named = [Run(Path(f"sweep/{k}_arm"), f"{k}_arm", "done", (f"lambda2={k}",), config=configs[k]) for k in range(3)]
    assert "name" not in differing_config(named)


def test_human_names_replace_single_overrides_or_the_whole_arm() -> None:
    arms = runs(["l1=0", "l2=0"], ["l1=0", "l2=1"], ["l1=2", "l2=0"], ["l1=2", "l2=1"])
    names = {"l1=0, l2=0": "MSE only", "+l2=1": "VSD", "l1=0": "no LPIPS"}
    assert arm_labels(arms, names) == ["MSE only", "no LPIPS, VSD", "l1=2, l2=0", "l1=2, VSD"]


def test_an_arm_without_a_difference_is_the_default() -> None:
    assert arm_labels(runs(["a=1"], ["a=1", "b=2"]), {}) == ["default", "b=2"]


def test_equal_labels_are_told_apart_by_their_folders() -> None:
    assert arm_labels(runs(["a=1"], ["a=2"]), {"a=1": "same", "a=2": "same"}) == ["same (0_arm)", "same (1_arm)"]


def test_a_single_arm_is_named_by_its_overrides_or_its_folder() -> None:
    assert arm_labels(runs(["a=1", "b=2"]), {}) == ["a=1, b=2"]
    assert arm_labels(runs([]), {}) == ["0_arm"]


def test_a_name_for_no_arm_is_reported_with_the_nearest_override() -> None:
    arms = runs(["lambda2=0"], ["lambda2=1"])
    assert unused_names(arms, {"lambda2=0": "without", "lamda2=1": "with"}) == [
        "report.labels: 'lamda2=1' is the override of no arm. Did you mean 'lambda2=1'?"
    ]


def test_a_name_for_a_key_renames_the_setting_and_an_exact_one_wins() -> None:
    arms = runs(
        ["generator.timestep=100", "o.lr=1.0e-5"], ["generator.timestep=999", "o.lr=1.0e-5"], ["generator.timestep=999", "o.lr=2e-05"]
    )
    names = {"generator.timestep": "T", "o.lr": "lr", "generator.timestep=100": "early"}
    assert arm_labels(arms, names) == ["early, lr = 1.0e-5", "T = 999, lr = 1.0e-5", "T = 999, lr = 2e-05"]
    assert unused_names(arms, names | {"generator.timesteps": "T"}) == [
        "report.labels: 'generator.timesteps' is the override of no arm. Did you mean 'generator.timestep'?"
    ]


def test_a_key_without_a_name_is_cut_to_what_names_it_among_all_keys() -> None:
    configs = [{"optimizer": {"lr": 1}, "loss": {"vsd": {"optimizer": {"lr": 2}, "guidance": 3}}, "report": {"labels": {"guidance": "x"}}}]
    arms = runs(["loss.vsd.optimizer.lr=2", "loss.vsd.guidance=1"], ["loss.vsd.optimizer.lr=3", "loss.vsd.guidance=3"], configs=configs * 2)
    assert arm_labels(arms, {}) == ["vsd.optimizer.lr=2, guidance=1", "vsd.optimizer.lr=3, guidance=3"]
    assert arm_labels(runs(["loss/terms=[mse]"], ["loss/terms=[mse,vsd]"]), {}) == ["terms=[mse]", "terms=[mse,vsd]"]
    assert arm_labels(runs(["optimizer.lr=1", "a.optimizer.lr=1"], []), {})[0] == "optimizer.lr=1, a.optimizer.lr=1"


def test_a_path_is_cut_to_what_tells_it_from_the_others() -> None:
    arms = runs(
        ["checkpoint='/r/a/1_method=x'", "steps=1"], ["checkpoint=/r/a/2_y/", "steps=1"], ["checkpoint=/r/b/2_y", "steps=5"], ["steps=5"]
    )
    assert arm_labels(arms, {"steps": "steps"}) == [
        "checkpoint=1_method=x, steps = 1",
        "checkpoint=a/2_y, steps = 1",
        "checkpoint=b/2_y, steps = 5",
        "steps = 5",
    ]
    assert arm_labels(arms, {"checkpoint=/r/b/2_y": "Y"})[2] == "Y, steps=5"


def test_config_differences_are_flat_and_leave_out_report_and_own_folders() -> None:
    configs: list[dict[str, Any]] = [
        {"loss": {"terms": ["mse"], "weight": 1}, "seed": 1, "out": "x/0_arm", "report": {"title": "a"}},
        {"loss": {"terms": ["mse", "vsd"], "weight": 1}, "seed": 1, "out": "x/1_arm", "report": {"title": "b"}, "extra": None},
        {},
    ]
    assert differing_config(runs([], [], [], configs=configs)) == {
        "loss.terms": ['["mse"]', '["mse", "vsd"]', ""],
        "extra": ["-", "null", ""],
    }


def test_a_part_that_some_arms_lack_is_one_line_and_a_changed_value_stays_itself() -> None:
    table = {
        "lambda2": ["0", "1", "1"],
        "loss.terms.gan.weight": ["-", "0.1", "-"],
        "loss.terms.gan.lr": ["-", "1e-4", "-"],
        "loss.terms.vsd.weight": ["-", "1", "2"],
        "loss.terms.vsd.rank": ["-", "4", "4"],
    }
    short = in_short(table)
    assert short == {"lambda2": ["0", "1", "1"], "loss.terms.gan": ["-", "2 settings", "-"]} | {key: table[key] for key in list(table)[3:]}
