"""Facts about the command line's parts."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
from cli_paths import CONF
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.job import job
from osediff_exp.cli.keys import did_you_mean, exists
from osediff_exp.cli.ranks import process_rank
from osediff_exp.cli.records import exit_status, write_error, write_result, write_text
from osediff_exp.cli.resolvers import register_resolvers, slug, steps_within
from osediff_exp.cli.targets import target_paths, target_problem
from osediff_exp.cli.types import value_problem

if TYPE_CHECKING:
    from pathlib import Path


def test_a_budget_allows_the_steps_that_see_at_most_so_many_samples() -> None:
    assert steps_within(1000, {"batch_size": 4}) == 250
    assert steps_within(1000, {"batch_size": 4, "accumulate": 2, "critic_updates": 3, "devices": 2, "num_nodes": 2}) == 10  # 96 a step
    assert steps_within(3, {"batch_size": 4}) == 1


@pytest.mark.parametrize(("budget", "expected"), [("null", 40), ("100", 12)])
def test_max_steps_follows_from_a_budget_in_the_trainer_s_own_node(budget: str, expected: int) -> None:
    register_resolvers()
    config = OmegaConf.create(f"trainer: {{budget_samples: {budget}, batch_size: 8, max_steps: '${{steps:40}}'}}")
    assert config.trainer.max_steps == expected
    assert OmegaConf.to_container(config, resolve=True)["trainer"]["max_steps"] == expected  # type: ignore[index, call-overload]


def test_slugs_are_safe_and_bounded_and_distinct() -> None:
    assert slug("0_lambda2=0") == "0_lambda2=0"
    assert slug("1_+loss/terms=[mse, vsd]") == "1_loss-terms=mse,vsd"
    long = [slug("0_" + "a=b," * 60 + end) for end in ("x", "y")]
    assert all(len(name) <= 100 for name in long)
    assert long[0] != long[1]
    assert "/" not in slug("../../etc")
    assert not slug("../../etc").startswith(".")


@pytest.mark.parametrize(
    ("value", "default", "fits"),
    [
        (1, 1.0, True),
        (1.0, 1, False),
        (True, 1, False),
        (1, True, False),
        ("a", "b", True),
        (None, "b", True),
        (None, 1, False),
        ([1], [2.0], True),
        ([], [1], True),
        ({}, {}, True),
        ("a", {}, False),
        ("a", None, True),
        ("???", 1, True),
        (1, "???", True),
    ],
)
def test_which_values_fit_which_defaults(value: object, default: object, fits: bool) -> None:
    assert (value_problem("some.key", value, default) is None) == fits


def test_the_nearest_key_is_searched_over_the_whole_tree() -> None:
    keys = ["trainer", "trainer.max_steps", "trainer.max_epochs", "data.max_items", "generator.unet.lora_rank", "backbone.lora_rank"]
    assert did_you_mean("maxsteps", keys) == " Did you mean 'trainer.max_steps'?"
    assert did_you_mean("generator.lora_rank", keys) == " Did you mean 'generator.unet.lora_rank'?"
    assert did_you_mean("zzz", keys) == ""


def test_keys_reach_into_lists() -> None:
    tree = {"a": [{"b": 1}, 2]}
    assert exists(tree, "a[0].b")
    assert exists(tree, "a.1")
    assert not exists(tree, "a.2")


def test_targets_are_found_in_lists_and_judged_without_importing() -> None:
    tree = {"a": [{"_target_": "x.Y"}], "b": {"_target_": "z.W"}}
    assert list(target_paths(tree)) == [("a.0._target_", "x.Y"), ("b._target_", "z.W")]
    assert target_problem("osediff_exp.errors.UserError") is None
    assert target_problem("osediff_exp.randomness.numpy_generator") is None
    assert "Did you mean 'UserError'?" in (target_problem("osediff_exp.errors.UsrError") or "")
    assert "Did you mean 'errors'?" in (target_problem("osediff_exp.erors.UserError") or "")
    assert target_problem("diffusers.UNet2DConditionModel") is None, "names made at run time cannot be judged from files"
    assert target_problem("collections.OrderedDict") is None


def test_results_are_flat_json_and_never_half_written(workplace: Path) -> None:
    write_result(workplace, task="t", seconds=1.23456, figures={"psnr": float("inf"), "name": "x", "none": None})
    found = json.loads((workplace / "result.json").read_text())
    assert (found["psnr"], found["name"], found["none"], found["seconds"]) == (None, "x", None, 1.235)
    with pytest.raises(AssertionError, match="figures"):
        write_result(workplace, task="t", seconds=0, figures={"list": [1]})  # type: ignore[dict-item]
    assert [path.name for path in workplace.iterdir()] == ["result.json"]


def test_exit_status_reads_the_folders(workplace: Path) -> None:
    assert exit_status(workplace, multirun=False) == 1
    write_error(workplace, "the disk is full")
    assert exit_status(workplace, multirun=False) == 1
    write_error(workplace, "x", mistake=True)
    assert exit_status(workplace, multirun=False) == 2
    assert exit_status(workplace, multirun=True) == 1, "a sweep without runs did nothing"
    for name in ("config.yaml", "result.json"):
        write_text(workplace / "0" / name, "x")
    assert exit_status(workplace, multirun=True) == 0
    write_text(workplace / "1" / "config.yaml", "x")
    assert exit_status(workplace, multirun=True) == 1
    os.utime(workplace / "1" / "config.yaml", (1, 1))
    write_text(workplace / "multirun.yaml", "x")
    os.utime(workplace / "multirun.yaml", (2, 2))
    assert exit_status(workplace, multirun=True) == 0, "an earlier sweep's failures in the same folder do not count"


def test_only_rank_zero_writes(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _job_in(workplace, monkeypatch, rank=1)
    assert process_rank() == 1
    assert list(workplace.iterdir()) == []


def test_the_other_ranks_get_the_command_of_one_arm(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [*sys.argv]
    _job_in(workplace, monkeypatch, rank=0)
    seen = json.loads((workplace / "seen.json").read_text())
    assert seen["argv"] == ["--config-path", str(CONF), "lambda2=0", "+experiment=vsd_ablation", "hydra.mode=RUN"]
    assert seen["run_dir"] == str(workplace)
    assert sys.argv == before


def _job_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *, rank: int) -> None:
    """Run the job as a sweep's launcher would."""
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3", job_name="test"):
        config = compose("config", ["lambda2=0", "+experiment=vsd_ablation"], return_hydra_config=True)
    config.hydra.runtime.output_dir = str(folder)
    config.hydra.run.dir = "elsewhere"
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    config.task.function = "cli_example_tasks.tell_command"
    job(OmegaConf.masked_copy(config, [name for name in config if name != "hydra"]))


def test_a_path_with_an_equals_sign_needs_no_quotes() -> None:
    typed = ["resume=runs/0_lambda2=0/last.ckpt", "a=b=c", "a=[x/y=z]", "name='x/y=z'"]
    assert parse_arguments(typed).overrides == ["resume='runs/0_lambda2=0/last.ckpt'", *typed[1:]]


def test_a_path_that_exists_needs_no_quotes_whatever_its_signs(workplace: Path) -> None:
    arm = "0_loss-terms=mse,perceptual (old)"
    (workplace / arm).mkdir()
    (workplace / "1").mkdir()
    typed = [
        f"checkpoint={arm}",
        f"report.question={'a long text, ' * 50}",
        f"runs=[{arm},b]",
        "checkpoint=a,b",
        "seed=1",
        "loss/terms=[mse,vsd]",
    ]
    assert parse_arguments(typed).overrides == [f"checkpoint='{arm}'", *typed[1:]]


def test_a_result_holds_no_number_that_is_not_finite_and_says_what_it_was(tmp_path: Path) -> None:
    figures = {"kid": float("nan"), "loss": float("inf"), "low": -float("inf"), "none": None, "psnr": 25.5}
    write_result(tmp_path, task="train", seconds=1.0, figures=figures)
    text = (tmp_path / "result.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert [found[key] for key in figures] == [None, None, None, None, 25.5]
    assert found["not_finite"] == "kid=nan, loss=inf, low=-inf"
    write_result(tmp_path, task="train", seconds=1.0, figures={"psnr": 25.5})
    assert "not_finite" not in json.loads((tmp_path / "result.json").read_text())
