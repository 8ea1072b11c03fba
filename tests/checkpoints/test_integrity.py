"""Checkpoints in place: whole at every moment, listed by checksum, the one before kept and used."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from osediff_exp.checkpoints import integrity
from osediff_exp.checkpoints.integrity import LAST, PREVIOUS, SUMS, is_intact, newest_intact, put_in_place
from osediff_exp.errors import UserError
from osediff_exp.tasks.resuming import Start, start_of


def save(folder: Path, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{LAST}.part"
    torch.save({"steps_taken": steps}, part)
    put_in_place(part)


def steps_of(path: Path) -> int:
    return int(torch.load(path)["steps_taken"])


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_the_last_and_the_one_before_are_kept_and_listed(tmp_path: Path) -> None:
    for steps in (1, 2, 3, 4):
        save(tmp_path, steps)
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS, SUMS}
    assert (steps_of(tmp_path / LAST), steps_of(tmp_path / PREVIOUS)) == (4, 3)
    assert len((tmp_path / SUMS).read_text().split()) == 3
    assert is_intact(tmp_path / LAST)
    assert is_intact(tmp_path / PREVIOUS)


@pytest.mark.parametrize("kill_at", range(6))
def test_a_kill_at_any_step_leaves_a_whole_last_checkpoint(tmp_path: Path, kill_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call into the system is one moment; the last moments already have the new checkpoint in place."""
    for steps in (1, 2):
        save(tmp_path, steps)
    left = kill_at

    def moment(real):  # type: ignore[no-untyped-def]
        def call(*arguments, **named):  # type: ignore[no-untyped-def]
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            return real(*arguments, **named)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", moment(Path.replace))
        patch.setattr(integrity.os, "fsync", moment(os.fsync))
        patch.setattr(integrity.os, "link", moment(os.link))
        with contextlib.suppress(KeyboardInterrupt):
            save(tmp_path, 3)
    newest = newest_intact(tmp_path)
    assert newest == tmp_path / LAST
    assert steps_of(newest) in (2, 3)
    save(tmp_path, 4)
    assert (steps_of(tmp_path / LAST), is_intact(tmp_path / LAST), is_intact(tmp_path / PREVIOUS)) == (4, True, True)


def test_a_full_disk_leaves_the_checkpoints_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(integrity.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            save(tmp_path, 2)
    assert steps_of(tmp_path / LAST) == 1
    assert is_intact(tmp_path / LAST)


def test_auto_goes_on_from_the_one_before_where_the_last_is_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    auto = OmegaConf.create({"resume": "auto"})
    assert start_of(auto, tmp_path) == Start()
    for steps in (5, 10):
        save(tmp_path / "checkpoints", steps)
    assert start_of(auto, tmp_path).steps == 10
    damage(tmp_path / "checkpoints" / LAST)
    found = start_of(auto, tmp_path)
    assert (found.steps, found.checkpoint) == (5, str(tmp_path / "checkpoints" / PREVIOUS))
    assert "going on from previous.ckpt" in caplog.text
    with pytest.raises(UserError, match="is damaged"):
        start_of(OmegaConf.create({"resume": str(tmp_path / "checkpoints" / LAST)}), tmp_path)
    damage(tmp_path / "checkpoints" / PREVIOUS)
    with pytest.raises(UserError, match="are damaged: remove them to start anew"):
        start_of(auto, tmp_path)


def test_checkpoints_without_a_list_are_taken_as_they_are(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints", 3)
    (tmp_path / "checkpoints" / SUMS).unlink()
    assert start_of(OmegaConf.create({"resume": "auto"}), tmp_path).steps == 3
