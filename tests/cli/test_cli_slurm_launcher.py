"""What the Slurm launcher submits of a sweep that is run again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from osediff_exp.cli.records import start_records, write_result
from osediff_exp.cli.sweeps import FolderTakenError

if TYPE_CHECKING:
    from pathlib import Path

submitit = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher", reason="hydra-submitit-launcher is not installed")


class _Composer:
    """Hydra's loader as far as the launcher asks it."""

    def load_sweep_config(self, config: Any, overrides: list[str]) -> Any:
        return OmegaConf.merge(config, OmegaConf.from_dotlist(overrides))


@pytest.fixture
def launcher(workplace: Path) -> Any:
    from osediff_exp.cli.slurm_launcher import ResumingSlurmLauncher

    hydra = {"job": {"num": 0}, "sweep": {"dir": str(workplace), "subdir": "${hydra.job.num}_arm"}}
    made = ResumingSlurmLauncher()
    made.setup(
        hydra_context=SimpleNamespace(config_loader=_Composer()),  # type: ignore[arg-type]
        task_function=lambda config: None,
        config=OmegaConf.create({"seed": 0, "hydra": hydra}),
    )
    return made


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """Run what would be submitted at once; return the number and the overrides that each job is run with."""
    ran: list[tuple[int, Any]] = []

    def call(self: Any, overrides: Any, job_dir_key: str, job_num: int, job_id: str, state: Any) -> JobReturn:
        ran.append((job_num, overrides))
        return JobReturn(status=JobStatus.COMPLETED)

    def launch(self: Any, job_overrides: Any, initial_job_idx: int) -> list[JobReturn]:
        return [self(overrides, "hydra.sweep.dir", initial_job_idx + i, "id", {}) for i, overrides in enumerate(job_overrides)]

    monkeypatch.setattr(submitit.SlurmLauncher, "__call__", call)
    monkeypatch.setattr(submitit.SlurmLauncher, "launch", launch)
    return ran


def finish(run_dir: Path, seed: int) -> None:
    start_records(run_dir, OmegaConf.create({"seed": seed}))
    write_result(run_dir, task="train", seconds=1.0, figures={})


def test_finished_arms_are_kept_and_the_others_submitted_under_their_own_numbers(
    launcher: Any, jobs: list[tuple[int, Any]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(workplace / "0_arm", 10)
    finish(workplace / "2_arm", 12)
    results = launcher.launch([["seed=10"], ["seed=11"], ["seed=12"], ["seed=13"]], 0)
    assert jobs == [(1, ["seed=11"]), (3, ["seed=13"])]
    assert [found.status for found in results] == [JobStatus.COMPLETED] * 4
    assert capsys.readouterr().out.split("\n")[:2] == ["0_arm: finished earlier, kept", "2_arm: finished earlier, kept"]


def test_a_finished_sweep_submits_nothing(launcher: Any, jobs: list[tuple[int, Any]], workplace: Path) -> None:
    finish(workplace / "0_arm", 10)
    assert [found.return_value for found in launcher.launch([["seed=10"]], 0)] == [None]
    assert not jobs


def test_a_run_with_other_settings_stops_the_sweep_before_anything_is_submitted(
    launcher: Any, jobs: list[tuple[int, Any]], workplace: Path
) -> None:
    finish(workplace / "1_arm", 99)
    with pytest.raises(FolderTakenError, match="holds a run with other settings"):
        launcher.launch([["seed=10"], ["seed=11"]], 0)
    assert not jobs
