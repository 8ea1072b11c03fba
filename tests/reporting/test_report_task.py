"""The report task and the experiments' report settings, as the real configuration has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from sweep_folders import config, make_run, make_sweep, result

from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.preflight import make_plan
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.reporting.comparison import compare
from osediff_exp.reporting.hydra_callback import settings_of
from osediff_exp.tasks.report import run

CONF = conf_dir(None)
ARMS = {
    "score_updates": (["trainer.critic_updates=2", "loss.terms.vsd.optimizer.lr=0.0002"], "updates = 2, score lr = 0.0002"),
    "guidance": (["loss.terms.vsd.guidance=3.0"], "guidance = 3.0"),
    "timestep_sweep": (["generator.timestep=700"], "T = 700"),
    "lambda_grid": (["lambda1=4", "lambda2=0"], "perceptual = 4, VSD = 0"),
}
BASELINES = {
    "score_updates": ["trainer.critic_updates=1", "loss.terms.vsd.optimizer.lr=0.001"],
    "guidance": ["loss.terms.vsd.guidance=7.5"],
    "timestep_sweep": ["generator.timestep=200"],
    "lambda_grid": ["lambda1=2", "lambda2=1"],
}


@pytest.mark.parametrize("runs", ["runs=here", "runs=[here,here]"])
def test_a_wrong_path_is_told_before_any_folder_is_made(runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert make_plan(CONF, parse_arguments(["task=report", runs])).sweep is None
    with pytest.raises(UserError, match=r"runs=hree: there is no such file or folder. Did you mean 'here'\?"):
        make_plan(CONF, parse_arguments(["task=report", "runs=[here,hree]"]))
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("experiment", ARMS)
def test_an_experiments_arms_have_readable_names_and_its_baseline_exists(experiment: str, tmp_path: Path) -> None:
    register_resolvers()
    with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
        settings = settings_of(compose("config", [f"+experiment={experiment}"]))
    overrides, label = ARMS[experiment]
    for number, arm in enumerate((overrides, BASELINES[experiment])):
        made = config() | {"optimizer": {"lr": 1}, "loss": {"terms": {"vsd": {"optimizer": {"lr": 2}}}}}
        make_run(tmp_path, number, [*arm, f"+experiment={experiment}"], result=result(25, 0.7, 5, 0.3), config=made)
    comparison = compare(tmp_path, settings)
    assert comparison.baseline is comparison.arms[1]
    assert comparison.arms[0].label == label
    assert comparison.notes == []


def test_a_list_of_folders_is_reported_in_the_tasks_own_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = tmp_path / "runs" / "report"
    run_dir.mkdir(parents=True)
    half = make_run(tmp_path, 0, ["lambda2=0.5"], folder="half", result=result(25, 0.7, 5, 0.3), config=config(lambda2=0.5))
    sources = [str(make_sweep(tmp_path / "vsd")), str(half)]
    figures = run(OmegaConf.create({"runs": sources, "target": "html"}), run_dir)
    assert (figures["arms"], figures["report"]) == (5, str(run_dir / "report.html"))
    assert {path.name for path in run_dir.iterdir()} >= {"report.html", "comparison.csv", "comparison.md", "comparison.tex"}
    assert "lambda2=0.5" in capsys.readouterr().out
