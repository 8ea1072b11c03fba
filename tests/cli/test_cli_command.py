"""The real entry: as a process, its time, exit status and last line; in this process (``run``), what lies in the folders."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_paths import CONF, Call, folder, result
from omegaconf import OmegaConf

from osediff_exp import __version__
from osediff_exp.cli.help import help_text


def child_seconds() -> float:
    """Return the processor time of finished child processes: on a loaded machine the clock on the wall tells nothing."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_answers_at_once_and_lists_what_there_is(call: Call, workplace: Path) -> None:
    before = child_seconds()
    done = call("--help")
    assert child_seconds() - before < 2
    assert done.returncode == 0
    assert "work                    answers with what it was given" in done.stdout
    assert "vsd_ablation            does VSD matter?" in done.stdout
    assert "loss/terms=             lpips, mse, st_lpips, vsd" in done.stdout
    assert list(workplace.iterdir()) == []


def test_help_hides_building_blocks(workplace: Path) -> None:
    (workplace / "group").mkdir()
    for name in ("_base", "option"):
        (workplace / "group" / f"{name}.yaml").write_text("")
    assert "group=                  option\n" in help_text([workplace])


def test_a_mistake_is_one_line_status_2_and_quick(call: Call, workplace: Path) -> None:
    before = child_seconds()
    done = call("+experiment=vsd_ablaton")
    assert child_seconds() - before < 2
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: no experiment is called 'vsd_ablaton'. Did you mean 'vsd_ablation'?")
    assert list(workplace.iterdir()) == []


def test_the_command_line_never_imports_torch() -> None:
    code = "import sys, osediff_exp.__main__, osediff_exp.cli.job, osediff_exp.cli.preflight; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=CONF.parents[2]).returncode == 0


def test_a_run_leaves_its_result_and_configuration(call: Call, workplace: Path) -> None:
    done = call("hydra.run.dir='runs/my run'", "lambda2=0.5")
    assert done.returncode == 0
    assert folder(done) == workplace / "runs" / "my run"
    found = result(folder(done))
    assert (found["lambda2"], found["task"], found["version"], found["nothing"]) == (0.5, "work", __version__, None)
    assert set(found) >= {"seconds", "commit"}
    config = OmegaConf.load(folder(done) / "config.yaml")
    assert (config.lambda2, config.loss.terms.vsd.weight) == (0.5, 0.5)
    assert "hydra" not in config


@pytest.mark.parametrize(
    ("seed", "status", "line", "log"),
    [(13, 2, "seed=13 brings bad luck: choose another", False), (14, 1, "RuntimeError: first line second line", True)],
)
def test_a_failed_run_says_why_in_its_folder(run: Call, workplace: Path, seed: int, status: int, line: str, log: bool) -> None:
    (workplace / "here").mkdir()
    (workplace / "here" / "result.json").write_text("of an earlier run")
    done = run("hydra.run.dir=here", f"seed={seed}")
    assert done.returncode == status
    assert (folder(done) / "error.txt").read_text() == line + "\n"
    assert not (folder(done) / "result.json").exists()
    assert (folder(done) / "error.log").exists() == log
    assert done.stderr.startswith(f"error: {line}")
    assert len(done.stderr.splitlines()) == 1


def test_half_a_job_keeps_its_figures_and_fails(run: Call) -> None:
    done = run("hydra.run.dir=here", "seed=16")
    assert done.returncode == 1
    assert json.loads((folder(done) / "result.json").read_text())["num_images"] == 1
    assert (folder(done) / "error.txt").read_text() == "1 of 2 photos is missing: look for it\n"
    assert done.stderr == "error: 1 of 2 photos is missing: look for it\n"


def test_an_interruption_leaves_130(call: Call) -> None:
    done = call("hydra.run.dir=here", "seed=15")
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "interrupted\n")


def test_a_failed_arm_stops_neither_the_others_nor_the_comparison(run: Call, workplace: Path) -> None:
    done = run("+experiment=vsd_ablation", "seed=13,2")
    assert done.returncode == 1
    assert folder(done).parent == workplace / "runs" / "vsd_ablation"
    arms = ["0_lambda2=0,seed=13", "1_lambda2=0,seed=2", "2_lambda2=1,seed=13", "3_lambda2=1,seed=2"]
    assert sorted(path.name for path in folder(done).iterdir() if path.is_dir()) == arms
    assert (folder(done) / "comparison.txt").read_text().split() == [arms[1], arms[3]]
    assert "error in 2_lambda2=1,seed=13: seed=13 brings bad luck" in done.stderr
    assert "2 of 4 runs failed" in done.stderr


def test_a_sweep_over_the_terms_beats_the_backbone(run: Call) -> None:
    done = run("+experiment=terms", "backbone=sd21")
    assert done.returncode == 0
    assert [result(path.parent)["terms"] for path in sorted(folder(done).glob("*/result.json"))] == ["mse", "mse,vsd"]


@pytest.mark.slow
def test_parallel_arms_run_in_other_processes(call: Call) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    done = call("-m", "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    found = [result(path.parent) for path in sorted(folder(done).glob("*/result.json"))]
    assert [figures["seed"] for figures in found] == [1, 2]


def test_the_configuration_can_be_printed(call: Call, workplace: Path) -> None:
    done = call("--cfg", "job", "--resolve", "lambda2=3")
    assert done.returncode == 0
    assert OmegaConf.create(done.stdout).loss.terms.vsd.weight == 3
    assert list(workplace.iterdir()) == []
