"""The checks before anything starts: each mistake gives one line that names the mend, and leaves nothing on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_paths import CONF

from osediff_exp.cli import preflight
from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.compose import open_composer
from osediff_exp.cli.preflight import Plan, make_plan
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def plan(*argv: str) -> Plan:
    return make_plan(CONF, parse_arguments(list(argv)))


MISTAKES = [
    (["+experiment=vsd_ablaton"], ["no experiment", "Did you mean 'vsd_ablation'?", "pixels, terms"]),
    (["experiment=pixel"], ["Did you mean 'pixels'?"]),
    (["task=reprot"], ["no task", "Did you mean 'report'?", "ranks, report, stopped, work"]),
    (["backbone=3"], ["no backbone is called '3'", "sd21, tiny"]),
    (["loss/terms=[mse,vds]"], ["no loss/terms", "Did you mean 'vsd'?"]),
    (["hydra/launcher=no_such"], ["no hydra/launcher", "basic"]),
    (["prompt=[]"], ["leaves prompt out", "choose one of "]),
    (["degradation=[light,mixed]"], ["degradation is one option", "degradation=mixed takes several", "-m degradation=light,mixed"]),
    (["~prompt"], ["leaves prompt out"]),
    (["degradation=[]"], ["leaves degradation out"]),
    (["generator=[]"], ["leaves generator out"]),
    (["bakbone=tiny"], ["unknown key 'bakbone'", "'backbone'"]),
    (["maxsteps=3"], ["unknown key 'maxsteps'", "'trainer.max_steps'"]),
    (["+maxsteps=3"], ["unknown key 'maxsteps'", "'trainer.max_steps'"]),
    (["++trainer.maxsteps=3"], ["unknown key 'trainer.maxsteps'", "'trainer.max_steps'"]),
    (["+trainer={maxsteps: 3}"], ["unknown key 'trainer.maxsteps'", "'trainer.max_steps'"]),
    (["trainer.max_steps.x=3"], ["unknown key 'trainer.max_steps.x'"]),
    (["~sed"], ["unknown key 'sed'", "'seed'"]),
    (["hydra.runn.dir=x"], ["unknown key 'hydra.runn.dir'", "'hydra.run.dir'"]),
    (["+experiment=unknown_key"], ["unknown key 'trainer.maxsteps'", "experiment/unknown_key.yaml", "'trainer.max_steps'"]),
    (["+experiment=wrong_type"], ["trainer.max_steps=many", "a whole number", "experiment/wrong_type.yaml"]),
    (["trainer.max_steps=abc"], ["trainer.max_steps=abc: expected a whole number (default 3), got a text"]),
    (["trainer.max_steps=1e3"], ["expected a whole number", "1000.0"]),
    (["trainer.deterministic=1"], ["expected true or false (default false), got the number 1"]),
    (["lambda2=null"], ["lambda2=null: expected a number"]),
    (["name=2024"], ["expected a text", "quote it"]),
    (["resume=3"], ["resume=3: expected a text"]),
    (["optimizer.betas=0.9"], ["expected a list"]),
    (["trainer.milestones=[a]"], ["expected a list like [1, 2], but a is a text"]),
    (["report=3"], ["expected a group of keys"]),
    (["report.labels.x=y"], ["++report.labels.x=y"]),
    (["lambda1=${lamda2}"], ["lamda2", "Did you mean 'lambda2'?"]),
    (["loss.terms.vsd._target_=cli_example_tasks.Trem"], ["cli_example_tasks defines no 'Trem'", "'Term'"]),
    (["optimizer._target_=torch.optim.AdmaW"], ["torch.optim defines no 'AdmaW'", "'AdamW'"]),
    (["task.function=osediff_exp.taks.train.run"], ["osediff_exp has no module 'taks'", "'tasks'"]),
    (["optimizer._target_=tohrc.optim.AdamW"], ["the package 'tohrc' is not installed"]),
    (["task=report"], ["task=report needs runs: add runs=VALUE"]),
    (["lambda2=[1"], ["cannot read the argument 'lambda2=[1'"]),
    (["lambda2=a=b"], ["cannot read the argument", "quote"]),
    (["=3"], ["no key"]),
    (["lambda2=0,1"], ["lambda2=0,1 names several values: add -m"]),
    (["-m", "lambda2=0,abc"], ["lambda2=abc: expected a number"]),
    (["-m", "seed=1,2", "lambda2=0,1", "backbone=tiny,sd12"], ["no backbone", "'sd21'"]),
    (["-m", "maxsteps=3,4"], ["unknown key 'maxsteps'"]),
    (["-m", "hydra.job.name=a,b"], ["hydra.job.name cannot be swept"]),
    (["+experiment=vsd_ablation", "seed=1,x"], ["seed=x: expected a whole number"]),
    (["hydra.run.dir="], ["hydra.run.dir is empty"]),
    (["hydra.sweep.dir=x"], ["a single run", "write hydra.run.dir=FOLDER"]),
    (["-m", "seed=1,2", "hydra.sweep.dir="], ["hydra.sweep.dir is empty"]),
    (["-m", "seed=1,2", "hydra.run.dir=x"], ["several runs", "write hydra.sweep.dir=FOLDER"]),
    (["optimizer._target_=os.system"], ["'os.system'", "packages=[os]"]),
    (["hydra.launcher._target_=os.system"], ["packages=[os]"]),
    (["hydra.searchpath=3"], ["hydra.searchpath must be a list"]),
    (["hydra.searchpath=[nowhere]"], ["hydra.searchpath=nowhere: there is no such folder"]),
    (["--mutlirun"], ["unknown flag '--mutlirun'", "'--multirun'"]),
    (["--config-dir", "nowhere"], ["no such folder"]),
]


@pytest.mark.parametrize(("argv", "parts"), MISTAKES, ids=[" ".join(argv) for argv, _ in MISTAKES])
def test_a_mistake_gives_one_line_and_leaves_nothing(argv: list[str], parts: list[str], workplace: Path) -> None:
    with pytest.raises(UserError) as raised:
        plan(*argv)
    message = str(raised.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message
    assert "HYDRA_FULL_ERROR" not in message
    assert list(workplace.iterdir()) == []


RIGHT = [
    ["lambda2=2"],
    ["resume=auto", "name=a_name"],
    ["++report.labels.x=y"],
    ["+report.labels={a: without VSD}"],
    ["trainer=gpu", "trainer.max_steps=7"],
    ["~loss.terms.vsd"],
    ["task=report", "runs=[a,b]"],
    ["task=report", "runs=a"],
    ["optimizer._target_=torch.optim.SGD"],
    ["lambda1=${lambda2}"],
    ["-m", "lambda2=range(0,3)", "loss/terms=[mse],[mse,vsd]"],
]


@pytest.mark.parametrize("argv", RIGHT, ids=[" ".join(argv) for argv in RIGHT])
def test_right_calls_pass_and_leave_nothing(argv: list[str], workplace: Path) -> None:
    assert plan(*argv).multirun == ("-m" in argv)
    assert list(workplace.iterdir()) == []


def test_an_experiment_brings_its_sweep_and_names_the_folder(workplace: Path) -> None:
    found = plan("+experiment=vsd_ablation", "trainer=gpu")
    assert found.multirun
    assert found.folder.parent == workplace / "runs" / "vsd_ablation"
    assert "hydra.job.config.override_dirname.exclude_keys=['experiment', 'trainer']" in found.overrides


def test_a_chosen_folder_stays_and_a_taken_default_gets_a_number(workplace: Path) -> None:
    (workplace / "here").mkdir()
    assert plan("hydra.run.dir=here").folder == workplace / "here"
    (workplace / "runs" / "work").mkdir(parents=True)
    clock = "{run: {dir: 'runs/work'}}"
    assert plan("--config-dir", _tree_with(workplace, f"hydra: {clock}"), "+experiment=fixed").folder == workplace / "runs" / "work_2"


def test_a_chosen_folder_may_lie_in_the_home_folder(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(workplace / "home"))
    assert plan("hydra.run.dir='~/mine'").folder == workplace / "home" / "mine"


def test_a_large_sweep_is_checked_value_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    swept = [["seed=1", "seed=2"], ["lambda2=0", "lambda2=1", "lambda2=2"]]
    assert len(preflight._arms(swept)) == 6
    monkeypatch.setattr(preflight, "_MOST_ARMS", 5)
    arms = preflight._arms(swept)
    assert len(arms) == 5
    assert {value for arm in arms for value in arm} == {value for values in swept for value in values}
    assert all(len(arm) == 2 for arm in arms)


def test_a_broken_file_names_its_line(workplace: Path) -> None:
    extra = _tree_with(workplace, "seed: {1")
    with pytest.raises(UserError, match=r"fixed.yaml, line \d+ is not valid YAML"):
        plan("--config-dir", extra, "+experiment=fixed")


TERMS = [
    ([], ["mse", "st_lpips", "vsd"]),
    (["backbone=sd21"], ["mse", "lpips", "vsd"]),
    (["backbone=sd21", "loss/terms=[mse]"], ["mse"]),
    (["loss/terms=[mse,st_lpips]", "backbone=sd21"], ["mse", "st_lpips"]),
    (["backbone=sd21", "+experiment=pixels"], ["mse"]),
    (["+experiment=pixels", "backbone=sd21", "loss/terms=[vsd]"], ["vsd"]),
]


@pytest.mark.parametrize(("overrides", "terms"), TERMS, ids=[" ".join(overrides) or "defaults" for overrides, _ in TERMS])
def test_the_backbone_chooses_the_terms_unless_the_user_or_the_experiment_does(overrides: list[str], terms: list[str]) -> None:
    with open_composer(CONF, overrides) as composer:
        assert list(composer.whole(overrides).loss.terms) == terms


def _tree_with(folder: Path, text: str) -> str:
    target = folder / "mine" / "experiment" / "fixed.yaml"
    target.parent.mkdir(parents=True)
    target.write_text(f"# @package _global_\n{text}\n")
    return str(folder / "mine")
