from __future__ import annotations

import io
import pickle
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from osediff_exp.reporting.hydra_callback import SweepReport

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import hydra, json, os, pathlib
from hydra.core.hydra_config import HydraConfig
@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    folder = pathlib.Path(HydraConfig.get().runtime.output_dir)
    if config.lambda2 == 1:
        (folder / "error.txt").write_text("it broke")
        raise RuntimeError("it broke")
    (folder / "result.json").write_text(json.dumps({"psnr": 25.0 + config.lambda2, "bicubic_psnr": 24.0}))
main()
"""
CONFIG = """
lambda2: 0
report: {title: From the config, labels: {"lambda2=0": none}}
hydra:
  sweep: {dir: sweep, subdir: "${hydra.job.num}_${hydra.job.override_dirname}"}
  callbacks: {report: {_target_: osediff_exp.reporting.hydra_callback.SweepReport}}
"""


def sweep(folder: Path, values: str) -> subprocess.CompletedProcess[str]:
    (folder / "app.py").write_text(APP)
    (folder / "config.yaml").write_text(CONFIG)
    return subprocess.run([sys.executable, "app.py", "-m", f"lambda2={values}"], cwd=folder, capture_output=True, text=True, check=False)


def test_a_sweep_ends_with_its_comparison(tmp_path: Path) -> None:
    done = sweep(tmp_path, "0,2")
    assert done.returncode == 0, done.stderr
    assert "From the config" in done.stdout
    assert "none" in done.stdout
    assert "report.html" in done.stdout
    lines = (tmp_path / "sweep" / "comparison.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [["none", "done", "0"], ["lambda2=2", "done", "2"], ["bicubic", "reference", ""]]


@pytest.mark.slow
def test_a_failed_arm_does_not_cost_the_report(tmp_path: Path) -> None:
    assert sweep(tmp_path, "0,1,2").returncode != 0
    lines = (tmp_path / "sweep" / "comparison.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["done", "failed", "done", "reference"]


def test_a_report_that_cannot_be_written_costs_one_line(tmp_path: Path) -> None:
    out = io.StringIO()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": "nowhere"}, "runtime": {"cwd": str(tmp_path)}}})
    SweepReport(console=Console(file=out)).on_multirun_end(config)
    assert out.getvalue().count("\n") == 1
    assert "could not be written" in out.getvalue()
    assert "nowhere" in out.getvalue()


def test_launchers_can_send_it_to_other_processes() -> None:
    assert isinstance(pickle.loads(pickle.dumps(SweepReport())), SweepReport)
