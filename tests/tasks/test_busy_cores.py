"""More threads than free cores: said before a training, and by the doctor."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir

from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.tasks import busy_cores
from osediff_exp.tasks.busy_cores import threads_too_many, warn_of_busy_cores
from osediff_exp.tasks.doctor import hardware

CONF = Path(__file__).parents[2] / "conf"


def stat(folder: Path, *busy: int) -> Path:
    """Write a file of /proc/stat's form, each core so many hundredths busy of 1,000."""
    lines = ["cpu  1 2 3 4 5 6 7 0 0 0", *(f"cpu{k} {ticks} 0 0 {1000 - ticks} 0 0 0 0 0 0" for k, ticks in enumerate(busy)), "intr 5 6"]
    path = folder / "stat"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that sets how many threads there are and how busy (percent) each core is while one looks."""

    def set_to(threads: int, *percent: int, mine: set[int] | None = None) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
        monkeypatch.setattr(busy_cores, "_STAT", stat(tmp_path, *[0] * len(percent)))
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: mine or set(range(len(percent))), raising=False)

        def meanwhile(seconds: float) -> None:
            lines = [f"cpu{k} {share} 0 0 {1100 - share} 0 0 0 0 0 0" for k, share in enumerate(percent)]
            busy_cores._STAT.write_text("\n".join(lines))

        monkeypatch.setattr(busy_cores.time, "sleep", meanwhile)

    return set_to


def trainer(kind: str = "cpu", world_size: int = 1):
    return SimpleNamespace(world_size=world_size, strategy=SimpleNamespace(root_device=torch.device(kind)))


def test_a_busy_core_is_told(machine, caplog: pytest.LogCaptureFixture) -> None:
    machine(2, 97, 3)
    with caplog.at_level(logging.WARNING):
        warn_of_busy_cores(trainer())
    assert "keep one of the 2 cores busy, and 2 threads" in caplog.text
    assert "OMP_NUM_THREADS=1 may" in caplog.text


@pytest.mark.parametrize("percent", [(3, 40), (0, 0, 0, 99)])
def test_enough_free_cores_are_no_news(machine, percent: tuple[int, ...]) -> None:
    machine(2, *percent)
    assert threads_too_many() is None


def test_more_threads_than_cores_are_the_users_choice_where_nothing_else_runs(machine) -> None:
    machine(8, 0, 0)
    assert threads_too_many() is None


def test_only_cores_that_the_process_may_use_count(machine) -> None:
    machine(2, 0, 0, 99, 99, mine={0, 1})
    assert threads_too_many() is None
    machine(2, 0, 0, 99, 99, mine={1, 2})
    assert "one of the 2 cores" in str(threads_too_many())


def test_all_busy_leaves_one_thread(machine) -> None:
    machine(4, 99, 99)
    assert "2 of the 2 cores" in str(threads_too_many())
    assert "OMP_NUM_THREADS=1 " in str(threads_too_many())


def test_nothing_is_measured_where_it_does_not_matter(machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(1, 99)
    monkeypatch.setattr(busy_cores.time, "sleep", lambda seconds: pytest.fail("it waited"))
    assert threads_too_many() is None  # one thread
    warn_of_busy_cores(trainer("cuda"))
    warn_of_busy_cores(trainer(world_size=2))
    machine(2, 99, 0)
    monkeypatch.setattr(busy_cores, "_STAT", tmp_path / "absent")
    assert threads_too_many() is None


def test_the_doctor_says_it_too(machine, tmp_path: Path) -> None:
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", ["task=doctor", "trainer=cpu"])
    machine(2, 97, 3)
    check = hardware.cores(config, tmp_path)
    assert (check.name, check.status) == ("cores", "warning")
    assert "OMP_NUM_THREADS=1" in check.remedy
    machine(2, 0, 0)
    assert hardware.cores(config, tmp_path).status == "ok"
