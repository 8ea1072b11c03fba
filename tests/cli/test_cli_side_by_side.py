"""Mistakes that only the arms together show are one line, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.preflight import Plan, make_plan
from osediff_exp.errors import UserError

CONF = Path(__file__).parents[2] / "conf"


def plan(tmp_path: Path, *arguments: str) -> Plan:
    return make_plan(CONF, parse_arguments([*arguments, f"hydra.sweep.dir={tmp_path}/sweep"]))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(b"")
    return path


def test_runs_do_not_share_an_output(tmp_path: Path, photo: Path) -> None:
    command = ["-m", "task=restore", f"input={photo}", "upscale=1,2"]
    with pytest.raises(UserError, match=r"output=.*same is the same for several runs.*such as output='out/\$\{upscale\}'"):
        plan(tmp_path, *command, f"output={tmp_path}/same")
    plan(tmp_path, *command)
    plan(tmp_path, *command, f"output='{tmp_path}/${{upscale}}'")
    plan(tmp_path, *command, "output='${hydra:runtime.output_dir}/restored'")


def test_a_stage_comes_after_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"method=sinsr takes a finished run of method=resshift, which this sweep makes later: put method=resshift first"
    ):
        plan(tmp_path, "-m", "method=sinsr,resshift")
    plan(tmp_path, "-m", "method=resshift,sinsr")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lambda2=0,1", "loss/terms=[mse]"), r"lambda2 has no effect: none of loss/terms=\[mse\] is weighted by it"),
        (("lambda1=1,2", "method=resshift"), r"lambda1 has no effect: method=resshift has no term that is weighted by it"),
    ],
)
def test_a_weight_weighs_something(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(tmp_path, "-m", *arguments)


def test_a_weight_may_be_one_arms_alone(tmp_path: Path) -> None:
    arms = plan(tmp_path, "-m", "lambda2=3", "loss/terms=[mse],[mse,vsd]").arms
    assert [sorted(arm.loss.terms) for arm in arms] == [["mse"], ["mse", "vsd"]]
    assert arms[1].loss.terms.vsd.weight == 3 * arms[1].backbone.recipe.lambda2_scale
