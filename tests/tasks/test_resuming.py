"""Which checkpoint ``resume=`` names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from osediff_exp.errors import UserError
from osediff_exp.tasks.resuming import checkpoint_to_resume


def named(resume: str, run_dir: Path) -> Path | None:
    return checkpoint_to_resume(OmegaConf.create({"resume": resume}), run_dir, steps="steps_taken")


def test_a_run_a_file_and_a_home_folder_name_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    torch.save({"steps_taken": 3}, last)
    for resume in (str(last), str(tmp_path / "run"), "~/run/checkpoints/last.ckpt", "~/run"):
        assert named(resume, tmp_path / "new") == last
    assert named("auto", tmp_path / "run") == last
    assert named("auto", tmp_path / "new") is None


def test_a_folder_without_a_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no checkpoint; give a run's folder or its checkpoints/last.ckpt, or auto"):
        named(str(tmp_path), tmp_path / "new")
    with pytest.raises(UserError, match="there is no such file; give a run's folder"):
        named(str(tmp_path / "nothing.ckpt"), tmp_path / "new")
