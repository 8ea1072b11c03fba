"""Running a sweep again: finished arms are kept, killed ones go on, nothing of another run is lost."""

from __future__ import annotations

import fcntl
import json
import signal
from threading import Timer
from typing import TYPE_CHECKING, Any

import pytest
from cli_paths import folder, result
from omegaconf import DictConfig, OmegaConf

from osediff_exp.cli.folder import keep_training
from osediff_exp.cli.locks import LOCK, hold, is_held
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Call = Callable[..., subprocess.CompletedProcess[str]]

SWEEP = ("-m", "seed=1,17,2")


def results(sweep: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(sweep.glob("*/result.json"))}


def test_a_killed_sweep_is_completed_by_the_same_command(call: Call, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = call(*SWEEP)
    assert killed.returncode == -signal.SIGKILL
    (sweep,) = (workplace / "runs" / "work").iterdir()
    before = results(sweep)
    assert list(before) == ["0_seed=1"]
    monkeypatch.setenv("LUCKY", "1")
    done = call(*SWEEP)
    assert done.returncode == 0, done.stderr
    assert folder(done) == sweep
    assert done.stderr.startswith(f"going on in {sweep}: 1 of its runs are finished")
    assert "0_seed=1: finished earlier, kept" in done.stdout
    assert "1_seed=17: goes on from its last checkpoint" in done.stdout
    after = results(sweep)
    assert after["0_seed=1"] == before["0_seed=1"]
    assert [figures["resume"] for figures in after.values()] == [None, "auto", None]
    assert (sweep / "comparison.txt").read_text().split() == ["0_seed=1", "1_seed=17", "2_seed=2"]


def test_a_finished_sweep_is_not_touched_by_the_same_command(run: Call) -> None:
    first, second = (run("-m", "seed=1,2") for _ in range(2))
    assert folder(first) != folder(second)
    assert [len(results(folder(done))) for done in (first, second)] == [2, 2]


@pytest.mark.slow
def test_other_settings_or_fresh_start_anew(run: Call) -> None:
    failed = folder(run("-m", "seed=13,2"))
    assert folder(run("-m", "seed=13,2")) == failed
    assert folder(run("-m", "seed=13,2", "fresh=true")) != failed
    assert folder(run("-m", "seed=13,2", "lambda1=3")) != failed


def test_a_chosen_folder_keeps_its_arms_and_refuses_other_settings(run: Call, workplace: Path) -> None:
    assert run("-m", "seed=1,2", "hydra.sweep.dir=here").returncode == 0
    before = results(workplace / "here")
    written = {name: (workplace / "here" / name / "result.json").stat().st_mtime_ns for name in before}
    again = run("-m", "seed=1,2,3", "hydra.sweep.dir=here")
    assert again.returncode == 0
    after = results(workplace / "here")
    assert after.pop("2_seed=3")["seed"] == 3
    assert after == before
    assert {name: (workplace / "here" / name / "result.json").stat().st_mtime_ns for name in before} == written
    other = run("-m", "seed=1,2", "lambda2=5", "hydra.sweep.dir=here")
    assert other.returncode == 2
    assert other.stderr.splitlines()[-1].startswith(
        f"error: {workplace / 'here' / '0_seed=1'} holds a run with other settings (lambda2: 1.0 there, 5"
    )
    assert results(workplace / "here")["0_seed=1"] == before["0_seed=1"]
    assert not list((workplace / "here").rglob("error.txt"))


def test_a_folder_somebody_works_in_is_left_alone(run: Call, workplace: Path) -> None:
    for arguments, name in ((("seed=1", "hydra.run.dir=here"), "here"), (("-m", "seed=1,2", "hydra.sweep.dir=there"), "there")):
        (workplace / name).mkdir()
        with hold(workplace / name) as free:
            assert free
            assert is_held(workplace / name)
            done = run(*arguments)
        assert not is_held(workplace / name)
        assert done.returncode == 2
        assert "another process is running" in done.stderr.splitlines()[-1]
        assert not list((workplace / name).rglob("*.json")) + list((workplace / name).rglob("error.txt"))
    assert result(folder(run("seed=1", "hydra.run.dir=here")))["seed"] == 1


def test_who_asks_for_a_moment_keeps_nobody_out(workplace: Path) -> None:
    (workplace / LOCK).touch()
    with (workplace / LOCK).open("a") as asking:
        fcntl.flock(asking, fcntl.LOCK_EX)
        Timer(0.05, lambda: fcntl.flock(asking, fcntl.LOCK_UN)).start()
        with hold(workplace) as free:
            assert free


def test_a_refused_command_changes_nothing_and_starts_nothing(run: Call, workplace: Path) -> None:
    assert run("-m", "seed=1,2", "hydra.sweep.dir=here").returncode == 0
    before = {path: path.read_bytes() for path in (workplace / "here").rglob("*") if path.is_file()}
    refused = run("-m", "seed=1,2", "trainer.max_steps=5", "hydra.sweep.dir=here")
    assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (2, "", 1)
    assert "holds a run with other settings (trainer.max_steps: 3 there, 5 now)" in refused.stderr
    assert {path: path.read_bytes() for path in (workplace / "here").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(("arguments", "key", "times"), [(("-m", "seed=1,2"), "hydra.sweep.dir", 1), (("seed=1",), "hydra.run.dir", 2)])
def test_fresh_sets_the_chosen_folder_aside(run: Call, workplace: Path, arguments: tuple[str, ...], key: str, times: int) -> None:
    command = (*arguments, f"{key}=here")
    assert run(*command).returncode == 0
    before = sorted(path.read_text() for path in (workplace / "here").rglob("result.json"))
    for number in range(1, times + 1):
        fresh = run(*command, "fresh=true")
        assert fresh.returncode == 0, fresh.stderr
        assert f"{workplace / 'here'} held an earlier run, which is now {workplace / 'here'}.{number}" in fresh.stderr
        assert "going on" not in fresh.stderr
    assert sorted(path.read_text() for path in (workplace / "here.1").rglob("result.json")) == before
    assert len(list((workplace / "here").rglob("result.json"))) == len(before)


def test_a_training_given_again_with_its_folder_is_kept(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def settings(task: str, resume: str | None = None) -> DictConfig:
        return OmegaConf.create({"task": {"name": task}, "resume": resume})

    checkpoint = workplace / "half" / "checkpoints" / "last.ckpt"
    keep_training(workplace / "half", settings("train"))
    checkpoint.parent.mkdir(parents=True)
    keep_training(workplace / "half", settings("train"))  # nothing in it yet
    checkpoint.write_text("hours")
    keep_training(workplace / "half", settings("train", "auto"))
    with pytest.raises(UserError, match="half holds a training, whose records this task would replace: choose another hydra.run.dir"):
        keep_training(workplace / "half", settings("score"))
    assert (checkpoint.read_text(), capsys.readouterr().err) == ("hours", "")
    reads = OmegaConf.merge(settings("train"), {"pretrain": {"vae": str(checkpoint.parent), "title": "a/b"}})
    with pytest.raises(UserError, match=r"half is what pretrain.vae reads from and cannot be moved: choose another"):
        keep_training(workplace / "half", reads)  # type: ignore[arg-type]
    keep_training(workplace / "half", settings("train"))
    assert (workplace / "half.1" / "checkpoints" / "last.ckpt").read_text() == "hours"
    assert not (workplace / "half").exists()
    assert capsys.readouterr().err == (
        f"{workplace / 'half'} held an earlier training, which is now {workplace / 'half.1'} (resume=auto goes on with it)\n"
    )


@pytest.mark.slow
def test_fresh_moves_neither_where_somebody_works_nor_where_one_is(run: Call, workplace: Path) -> None:
    assert run("-m", "seed=1,2", "hydra.sweep.dir=here").returncode == 0
    with hold(workplace / "here" / "0_seed=1"):
        busy = run("-m", "seed=1,2", "hydra.sweep.dir=here", "fresh=true")
    assert (busy.returncode, len(busy.stderr.splitlines())) == (2, 1)
    assert "another process is at work" in busy.stderr
    (workplace / "multirun.yaml").write_text("")
    mine = run("-m", "seed=1,2", "hydra.sweep.dir=.", "fresh=true")
    assert (mine.returncode, len(mine.stderr.splitlines())) == (2, 1)
    assert "is the current folder" in mine.stderr
