"""A disk that fills up at any write of a real training: what was there stays whole, one line says so, and with room it goes on."""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from test_faults import PRETRAIN, SAMPLE, TRAIN, Facts, equal, pretraining, training

from osediff_exp.checkpoints.integrity import LAST, PREVIOUS, is_intact
from osediff_exp.cli.command import run_command

COMMANDS = {"train": ((*TRAIN, *SAMPLE, "resume=auto"), training), "pretrain": ((*PRETRAIN, "resume=auto"), pretraining)}
PLENTY = 256 * 2**20
PARTS = 8


class Disk:
    """A file system of its own, whose size can be set."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def mount(self, size: int) -> None:
        """Begin with an empty one of ``size`` bytes."""
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.folder)], check=True, capture_output=True)

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.folder)], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.folder)], check=False, capture_output=True)

    def used(self) -> int:
        found = os.statvfs(self.folder)
        return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    try:
        made.mount(2**20)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here, which root alone may: {error}")
    made.unmount()
    monkeypatch.chdir(tmp_path)
    yield made
    made.unmount()


def check_whole(out: Path) -> None:
    """Assert that every file of a run that stopped is whole, and that no half-written one is left."""
    for name in (LAST, PREVIOUS):
        if (path := out / "checkpoints" / name).exists():
            assert is_intact(path)
    for path in out.rglob("*.png"):
        with Image.open(path) as picture:
            picture.load()
    for path in out.rglob("*.csv"):
        text = path.read_text()
        rows = list(csv.DictReader(text.splitlines()))
        assert text.endswith("\n"), path
        assert all(None not in row and None not in row.values() for row in rows), path
    assert not [path for pattern in ("*.part", "*.tmp") for path in out.rglob(pattern)]


@pytest.mark.slow
@pytest.mark.parametrize("task", COMMANDS)
def test_a_disk_that_fills_up_costs_nothing_that_was_there(task: str, disk: Disk, capfd: pytest.CaptureFixture[str]) -> None:
    arguments, facts_of = COMMANDS[task]
    command = [*arguments, f"hydra.run.dir={disk.folder / 'out'}"]
    disk.mount(PLENTY)
    assert run_command(command) == 0
    needed, whole = disk.used(), facts_of(disk.folder / "out")
    disk.unmount()
    stopped = 0
    for part in range(PARTS):
        capfd.readouterr()
        disk.mount(max(needed * part // PARTS, 1) + 4096 * part)
        status, said = run_command(command), capfd.readouterr().err
        assert status == 1, said
        assert said.count("error: ") == 1, said
        assert "No space left on device" in said
        assert "Traceback" not in said
        check_whole(disk.folder / "out")
        stopped += (disk.folder / "out" / "checkpoints" / LAST).exists()
        disk.resize(PLENTY)
        assert run_command(command) == 0
        found: Facts = facts_of(disk.folder / "out")
        equal(whole, found)
        disk.unmount()
    assert stopped  # some runs had a checkpoint to keep
