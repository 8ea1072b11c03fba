"""Several ranks of one run: what they know of each other; and jobs that fit the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from cli_paths import CONF, HERE
from omegaconf import DictConfig, OmegaConf

from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.preflight import make_plan
from osediff_exp.cli.ranks import (
    LAUNCH,
    Decision,
    environment_of_one_run,
    folder_told,
    launch_id,
    process_rank,
    rank_zeros_decision,
    rank_zeros_folder,
    tell_ranks,
)
from osediff_exp.cli.resolvers import gpus
from osediff_exp.cli.slurm import check_job, job_ids
from osediff_exp.cli.stops import is_interrupt, requeued_by_slurm, what_stopped_it
from osediff_exp.errors import UserError


@pytest.fixture
def slurm_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("decision", list(Decision))
def test_the_other_ranks_learn_what_rank_0_does(slurm_step: None, tmp_path: Path, decision: Decision) -> None:
    tell_ranks(tmp_path, decision)
    assert rank_zeros_decision(tmp_path, patience=1) is decision


def test_the_word_of_an_earlier_launch_does_not_count(slurm_step: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_ranks(tmp_path, Decision.KEEP)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(TimeoutError, match=r"rank 1 has waited 0 s for rank 0"):
        rank_zeros_decision(tmp_path, patience=0.3)


def test_a_rank_alone_tells_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert launch_id() is None
    tell_ranks(tmp_path, Decision.START)
    assert not (tmp_path / LAUNCH).exists()


RANKS = [
    ({}, 0),
    ({"RANK": "3", "LOCAL_RANK": "1", "NODE_RANK": "0"}, 3),
    ({"LOCAL_RANK": "1"}, 1),
    ({"NODE_RANK": "0"}, 0),
    ({"NODE_RANK": "1"}, 1),
    ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, 1),
    ({"NODE_RANK": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}, 9),
    ({"SLURM_PROCID": "2"}, 2),
]


@pytest.mark.parametrize(("variables", "rank"), RANKS, ids=[",".join(variables) or "none" for variables, _ in RANKS])
def test_a_rank_is_read_from_what_its_starter_tells(variables: dict[str, str], rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert process_rank() == rank


ONE_NODE = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}


def test_ranks_that_torchrun_starts_share_the_folder_that_rank_0_chooses(workplace: Path) -> None:
    command = [sys.executable, "-m", "osediff_exp", "--config-path", str(CONF), "task=ranks", "-m", "seed=1,2"]
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}", "OMP_NUM_THREADS": "1"} | ONE_NODE

    def started(rank: str) -> subprocess.Popen[str]:
        variables = environment | {"RANK": rank, "SLURM_PROCID": rank}
        return subprocess.Popen(command, env=variables, cwd=workplace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    other = started("1")
    time.sleep(1.1)  # the clocks of the two name different seconds
    for rank in (started("0"), other):
        said = rank.communicate(timeout=60)[0]
        assert rank.returncode == 0, said
    (folder,) = (workplace / "runs" / "ranks").iterdir()  # and no word is left
    assert (folder / "comparison.txt").read_text() == "0_seed=1\n1_seed=2"
    assert all((folder / arm / f"rank{rank}.txt").is_file() for arm in ("0_seed=1", "1_seed=2") for rank in (0, 1))


def test_slurms_ranks_share_the_folder_of_their_own_launch(slurm_step: None, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osediff_exp.cli.preflight.rank_zeros_folder", partial(rank_zeros_folder, patience=0.2))
    chosen = workplace / "runs" / "work" / "chosen"
    monkeypatch.setenv("SLURM_PROCID", "0")
    with folder_told(chosen):
        monkeypatch.setenv("SLURM_PROCID", "1")
        assert make_plan(CONF, parse_arguments([])).folder == chosen
        monkeypatch.setenv("SLURM_STEP_ID", "1")
        with pytest.raises(UserError, match=r"rank 1 has waited 0 s .* or names its folder where .*: write hydra.run.dir=FOLDER"):
            make_plan(CONF, parse_arguments([]))
    assert make_plan(CONF, parse_arguments(["hydra.run.dir=here"])).folder == workplace / "here"


@pytest.mark.parametrize("variables", [{"RANK": "0", "WORLD_SIZE": "2"}, {"NODE_RANK": "1"}, ONE_NODE | {"WORLD_SIZE": "4", "RANK": "0"}])
def test_ranks_started_by_hand_need_a_folder(variables: dict[str, str], workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for argv, key in (([], "hydra.run.dir"), (["-m", "seed=1,2"], "hydra.sweep.dir")):
        with pytest.raises(UserError, match=f"nothing tells them one folder: write {key}=FOLDER for all of them"):
            make_plan(CONF, parse_arguments(argv))
        assert make_plan(CONF, parse_arguments([*argv, f"{key}=here"])).folder == workplace / "here"
    assert make_plan(CONF, parse_arguments(["--cfg", "job"])).config.seed == 123


def test_what_lightning_leaves_in_the_environment_ends_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "node1")
    before = dict(os.environ)
    with environment_of_one_run():
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("[../third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:23425: Connection reset by peer", True),
        ("[/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 60000ms for recv operation to complete", True),
        ("NCCL communicator was aborted on rank 0", True),
        ("[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9)", True),
        ("[Errno 104] Connection reset by peer", False),  # a download
        ("mat1 and mat2 shapes cannot be multiplied", False),
    ],
)
def test_a_rank_that_is_gone_is_told_from_other_errors(line: str, lost: bool) -> None:
    assert ("another process of this run has ended" in str(what_stopped_it(RuntimeError(line)))) is lost


FAILING_RANK = """
import os
from osediff_exp.cli.ranks import end_as_failed
end_as_failed()
print("said to the end")
"""


@pytest.mark.parametrize(("variables", "status"), [({"SLURM_NTASKS": "2"}, 1), ({"SLURM_NTASKS": "1"}, 0)])
def test_a_failed_rank_of_several_ends_badly_after_its_last_word(variables: dict[str, str], status: int) -> None:
    environment = os.environ | {"SLURM_PROCID": "0", "PYTHONPATH": str(Path(__file__).parents[2])} | variables
    done = subprocess.run([sys.executable, "-c", FAILING_RANK], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (status, "said to the end\n")


class SIGTERMException(SystemExit):
    """As Lightning calls it."""


def exit_on_interrupt() -> None:
    """As Lightning does."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


class UncompletedJobError(RuntimeError):
    """As submitit calls it."""


def test_signals_are_told_from_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as interrupted:
        exit_on_interrupt()
    assert is_interrupt(interrupted.value)
    assert not is_interrupt(SystemExit(1))
    assert "termination signal" in str(what_stopped_it(SIGTERMException()))
    assert "the same command with resume=auto goes on" in str(what_stopped_it(SIGTERMException()))
    assert "the same command goes on" in str(what_stopped_it(SIGTERMException(), in_sweep=True))
    assert what_stopped_it(SystemExit(3)) is what_stopped_it(UncompletedJobError()) is None
    assert not requeued_by_slurm(SystemExit(-1))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert "time limit" in str(what_stopped_it(UncompletedJobError()))
    assert requeued_by_slurm(SystemExit(-1))
    assert "queued it again" in str(what_stopped_it(SystemExit(-1)))


def test_a_termination_signal_ends_the_sweep_with_a_line_in_its_arm(call: object, workplace: Path) -> None:
    assert callable(call)
    done = call("-m", "task=stopped", "seed=1,2", "hydra.sweep.dir=here")
    assert done.returncode == 128 + signal.SIGTERM
    assert (workplace / "here" / "0_seed=1" / "error.txt").read_text().startswith("stopped by a termination signal")
    assert not (workplace / "here" / "1_seed=2").exists()


def job_config(*, tasks: object = 1, nodes: object = 1, devices: object = 1, num_nodes: object = 1, task: str = "train") -> DictConfig:
    launcher = {"_target_": "hydra_plugins.x.SlurmLauncher", "tasks_per_node": tasks, "nodes": nodes}
    trainer = {"devices": devices, "num_nodes": num_nodes}
    return OmegaConf.create({"hydra": {"launcher": launcher}, "trainer": trainer, "task": {"name": task}})


def test_jobs_that_fit_pass() -> None:
    for config in (job_config(), job_config(tasks=4, nodes=2, devices=4, num_nodes=2), job_config(task="evaluate")):
        check_job(config, config)


@pytest.mark.parametrize(
    ("job", "arm", "line"),
    [
        (job_config(tasks=4), job_config(devices=2), "hydra.launcher.tasks_per_node=4, but trainer.devices=2: Slurm starts"),
        (job_config(nodes=1), job_config(num_nodes=2), "hydra.launcher.nodes=1, but trainer.num_nodes=2: Slurm starts"),
        (job_config(tasks="auto"), job_config(devices="auto"), "hydra.launcher.tasks_per_node=auto: Slurm must know how many"),
        (job_config(tasks=2), job_config(devices=2, task="evaluate"), "task=evaluate works in one process: add trainer.devices=1"),
    ],
)
def test_jobs_that_do_not_fit_are_refused(job: DictConfig, arm: DictConfig, line: str) -> None:
    with pytest.raises(UserError, match=line):
        check_job(job, arm)


def test_a_node_gives_gpus_to_runs_on_gpus() -> None:
    assert [gpus("gpu", 4), gpus("cuda", 2), gpus("cpu", 2)] == [4, 2, None]


def test_the_real_tree_gives_a_job_one_process_per_device() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    from osediff_exp.cli.compose import open_composer

    typed = ["trainer=gpu", "trainer.num_nodes=2", "hydra/launcher=slurm"]
    with open_composer(conf_dir(), typed) as composer:
        launcher = composer.whole(typed).hydra.launcher
        assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (2, 4, 4)
        assert composer.whole(["hydra/launcher=slurm"]).hydra.launcher.gpus_per_node is None
    with pytest.raises(UserError, match="set trainer.devices alone, one value for all arms"):
        make_plan(conf_dir(), parse_arguments(["-m", "trainer.devices=1,2", "hydra/launcher=slurm"]))


def test_jobs_are_what_slurm_has_numbered(tmp_path: Path) -> None:
    assert job_ids(tmp_path) == []
    for name in ("37", "37_0", "37_1", "412_0"):
        (tmp_path / ".submitit" / name).mkdir(parents=True)
    for name in ("81003a7d1b.pkl", "9021.pkl", "8e20.sh"):  # what was to be submitted, and was not where sbatch refuses
        (tmp_path / ".submitit" / name).write_bytes(b"")
    assert job_ids(tmp_path) == ["37", "412"]
