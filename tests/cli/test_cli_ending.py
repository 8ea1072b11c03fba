"""However a command ends: one line why, each arm's fate in its folder, the comparison remade, the folder printed last."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_paths import CONF, HERE, Call, folder, result

from osediff_exp.cli.records import write_text
from osediff_exp.cli.stops import Terminated, is_termination, no_room, termination_raises

PARALLEL = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start the real entry in a process group of its own, where Ctrl-C is heard (a shell's background jobs ignore it)."""
    search = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    return subprocess.Popen(
        [sys.executable, "-m", "osediff_exp", "--config-path", str(CONF), *arguments],
        env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def stop(running: subprocess.Popen[str], number: int, *files: Path) -> subprocess.CompletedProcess[str]:
    """Send the signal to the whole group, as a terminal does, once the files are there."""
    for _ in range(2400):  # two minutes: a busy machine starts slowly
        if all(file.is_file() for file in files):
            break
        time.sleep(0.05)
    os.killpg(running.pid, number)
    out, errors = running.communicate(timeout=60)
    return subprocess.CompletedProcess(running.args, running.returncode, out, errors)


def test_ctrl_c_ends_a_serial_sweep_and_the_same_command_completes_it(run: Call, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["-m", "seed=1,18,2", "hydra.sweep.dir=here"]
    sweep = workplace / "here"
    stopped = stop(start(*command), signal.SIGINT, sweep / "1_seed=18" / "checkpoints" / "last.ckpt")
    assert (stopped.returncode, folder(stopped)) == (130, sweep)
    assert stopped.stderr.splitlines()[-1] == "interrupted"
    assert (sweep / "1_seed=18" / "error.txt").read_text() == "interrupted\n"
    assert not (sweep / "2_seed=2").exists()
    assert (sweep / "comparison.txt").read_text() == "0_seed=1"
    monkeypatch.setenv("LUCKY", "1")
    done = run(*command)
    assert done.returncode == 0, done.stderr
    assert (sweep / "comparison.txt").read_text().split() == ["0_seed=1", "1_seed=18", "2_seed=2"]
    assert result(sweep / "1_seed=18")["resume"] == "auto"


def test_an_interrupted_single_run_says_where_it_is(workplace: Path) -> None:
    stopped = stop(start("seed=18", "hydra.run.dir=here"), signal.SIGINT, workplace / "here" / "checkpoints" / "last.ckpt")
    assert (stopped.returncode, stopped.stderr, folder(stopped)) == (130, "interrupted\n", workplace / "here")
    assert (workplace / "here" / "error.txt").read_text() == "interrupted\n"


def test_a_termination_signal_leaves_143_and_a_line(workplace: Path) -> None:
    stopped = stop(start("seed=18", "hydra.run.dir=here"), signal.SIGTERM, workplace / "here" / "checkpoints" / "last.ckpt")
    assert (stopped.returncode, folder(stopped)) == (143, workplace / "here")
    assert (workplace / "here" / "error.txt").read_text().startswith("stopped by a termination signal")


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status", "line"), [(signal.SIGKILL, 1, "killed from outside"), (signal.SIGINT, 130, "interrupted")])
def test_a_stopped_parallel_sweep_is_summed_up_and_completed(
    call: Call, workplace: Path, monkeypatch: pytest.MonkeyPatch, number: int, status: int, line: str
) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher", reason="hydra-joblib-launcher is not installed")
    command, sweep = ["-m", "seed=18,19", "hydra.sweep.dir=here", *PARALLEL], workplace / "here"
    running = start(*command)
    marks = [sweep / arm / "checkpoints" / "last.ckpt" for arm in ("0_seed=18", "1_seed=19")]
    stopped = stop_worker(running, *marks) if number == signal.SIGKILL else stop(running, number, *marks)
    assert (stopped.returncode, folder(stopped)) == (status, sweep), stopped.stderr
    assert all((mark.parents[1] / "error.txt").read_text().startswith(line) for mark in marks)
    assert (sweep / "comparison.txt").read_text() == ""
    assert not (sweep / "error.txt").exists()
    assert (sweep / "error.log").exists() == (number == signal.SIGKILL)
    monkeypatch.setenv("LUCKY", "1")
    done = call(*command)
    assert done.returncode == 0, done.stderr
    assert (sweep / "comparison.txt").read_text().split() == ["0_seed=18", "1_seed=19"]
    assert not (sweep / "error.log").exists()


def stop_worker(running: subprocess.Popen[str], *files: Path) -> subprocess.CompletedProcess[str]:
    """Kill the process that works on the first arm."""
    while not all(file.is_file() for file in files):
        time.sleep(0.05)
    os.kill(int(files[0].read_text()), signal.SIGKILL)
    out, errors = running.communicate(timeout=60)
    return subprocess.CompletedProcess(running.args, running.returncode, out, errors)


def test_a_launcher_that_cannot_launch_is_one_line_and_a_log(run: Call, workplace: Path) -> None:
    done = run("-m", "seed=1,2", "hydra.sweep.dir=here", "++hydra.launcher._target_=cli_example_tasks.Term")
    assert (done.returncode, folder(done)) == (1, workplace / "here")
    assert len(done.stderr.splitlines()) == 1
    assert "RuntimeError: Invalid plugin 'cli_example_tasks.Term'" in done.stderr
    assert "Invalid plugin" in (workplace / "here" / "error.log").read_text()


def test_a_folder_that_cannot_be_made_is_the_users_mistake(run: Call, workplace: Path) -> None:
    (workplace / "file").write_text("")
    for arguments in (("-m", "seed=1,2", "hydra.sweep.dir=file/x"), ("hydra.run.dir=file/x",)):
        done = run(*arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert f"cannot write into {workplace / 'file' / 'x'} (Not a directory)" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="a small file system of one's own needs root")
def test_a_full_disk_costs_a_line_per_arm_and_leaves_no_scraps(call: Call, workplace: Path) -> None:
    small = workplace / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        single = call("seed=20", "hydra.run.dir=small/y")
        full = call("seed=1", "hydra.run.dir=small/z")
        shutil.rmtree(small / "y")
        done = call("-m", "seed=20,21", "hydra.sweep.dir=small/x")
        left = [path.name for path in small.rglob("*.tmp")]
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert (single.returncode, folder(single), full.returncode) == (1, small / "y", 1), "no mistake of the user's"
    assert full.stderr.count("error: ") == full.stderr.count("No space left on device") == 1
    assert (done.returncode, left, folder(done)) == (1, [], small / "x")
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if "No space left on device" in line]
    assert said
    assert all("free some and run the same command again" in line for line in said)


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "taken", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_full_disk_is_told_behind_other_errors() -> None:
    error = RuntimeError("the writer failed")
    error.__cause__ = OSError(errno.ENOSPC, "no", "/a/last.ckpt")
    assert no_room(error) == "No space left on device: /a/last.ckpt: free some and run the same command again"
    assert no_room(OSError(errno.ENOENT, "no")) is None


def test_a_termination_signal_raises_only_inside() -> None:
    with pytest.raises(Terminated) as raised, termination_raises():
        os.kill(os.getpid(), signal.SIGTERM)
    assert is_termination(raised.value)
    assert raised.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
