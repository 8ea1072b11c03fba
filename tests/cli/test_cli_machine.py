"""What the machine lacks, and words that no option knows, are told before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from osediff_exp.cli import inputs, machine
from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.command import run_command
from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.machine import check_machine, num_gpus
from osediff_exp.cli.preflight import make_plan
from osediff_exp.errors import UserError


def config(*, launcher: str = "x.BasicLauncher", task: str = "train", accelerator: str = "gpu", devices: Any = 1) -> DictConfig:
    group = {"accelerator": accelerator, "devices": devices}
    return OmegaConf.create({"hydra": {"launcher": {"_target_": launcher}}, "task": {"name": task}, "trainer": group, "pretrain": group})


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_gpus", lambda: 0)


@pytest.mark.parametrize(("task", "group"), [("train", "trainer"), ("pretrain", "pretrain")])
@pytest.mark.usefixtures("no_gpu")
def test_a_training_on_a_gpu_needs_one(task: str, group: str) -> None:
    with pytest.raises(UserError, match=f"{group}.accelerator=gpu, but this machine shows no GPU: use {group}.accelerator=cpu"):
        check_machine(config(task=task), config(task=task))


@pytest.mark.usefixtures("no_gpu")
def test_a_login_node_and_other_work_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: f"/bin/{name}")
    for fine in (config(launcher="x.SlurmLauncher"), config(accelerator="cpu"), config(accelerator="auto"), config(task="report")):
        check_machine(fine, fine)


def test_no_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "num_gpus", lambda: 1)
    check_machine(config(), config())
    with pytest.raises(UserError, match="trainer.devices=4, but this machine shows 1 GPU: set trainer.devices=1"):
        check_machine(config(devices=4), config(devices=4))


def test_slurm_needs_sbatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="needs Slurm's sbatch, which is not here"):
        check_machine(config(launcher="x.SlurmLauncher"), config())


@pytest.mark.parametrize(("visible", "seen"), [(None, 2), ("0", 1), ("", 0), ("-1", 0), ("1,0", 2), ("0,-1,1", 1)])
def test_gpus_are_counted_as_cuda_shows_them(monkeypatch: pytest.MonkeyPatch, visible: str | None, seen: int) -> None:
    monkeypatch.setattr(machine.sys, "platform", "linux")
    monkeypatch.setattr(machine, "_OTHER_MAKERS", ())
    monkeypatch.setattr(Path, "glob", lambda self, pattern: [Path("/dev/nvidia0"), Path("/dev/nvidia1"), Path("/dev/nvidiactl")])
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert num_gpus() == seen


WRONG_WORDS = [
    ("logger.wandb.mode=onlin", "logger.wandb.mode=onlin is none of auto, online, offline, disabled. Did you mean 'online'?"),
    ("trainer.precision=64-foo", "trainer.precision=64-foo is none of auto, 32-true, bf16-mixed, 16-mixed"),
    ("trainer.precision=bf16-mixd", "Did you mean 'bf16-mixed'?"),
    ("trainer.accelerator=gup", "Did you mean 'gpu'?"),
    ("generator.latent=modes", "Did you mean 'mode'?"),
    ("generator.alpha=rang", "Did you mean 'rank'?"),
]


@pytest.mark.parametrize(("override", "part"), WRONG_WORDS, ids=[override for override, _ in WRONG_WORDS])
def test_a_wrong_word_names_the_nearest(override: str, part: str) -> None:
    with pytest.raises(UserError) as raised:
        make_plan(conf_dir(), parse_arguments([override]))
    assert part in str(raised.value)


def test_a_training_that_validates_nothing_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_seen", set())
    make_plan(conf_dir(), parse_arguments(["-m", "seed=1,2", "data.val_first=0"]))
    assert capsys.readouterr().err.count("data.val_first=0: nothing is validated") == 1


def test_a_training_set_without_validation_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Image.new("RGB", (600, 600)).save(tmp_path / "photo.png")
    for more, said in (([], 1), ([f"data.val_root={tmp_path}"], 0), ([f"data.val_lr_root={tmp_path}", f"data.val_hr_root={tmp_path}"], 0)):
        monkeypatch.setattr(inputs, "_seen", set())
        make_plan(conf_dir(), parse_arguments(["data=folder", f"data.root={tmp_path}", *more]))
        assert capsys.readouterr().err.count("neither data.val_root nor data.val_lr_root") == said


def test_the_machine_is_asked_where_something_runs_not_where_it_is_printed(capsys: pytest.CaptureFixture[str], workplace: Path) -> None:
    if num_gpus() != 0:
        pytest.skip("this machine may have a GPU")
    assert run_command(["trainer=gpu"]) == 2
    assert capsys.readouterr().err.startswith("error: trainer.accelerator=gpu, but this machine shows no GPU")
    assert run_command(["trainer=gpu", "--cfg", "job", "-p", "trainer"]) == 0
    assert "devices: 4" in capsys.readouterr().out
    assert run_command(["data=folder", "data.root=/not/here", "--cfg", "job", "-p", "data"]) == 0
    assert "root: /not/here" in capsys.readouterr().out
    assert run_command(["-m", "lambda2=0,1", "--cfg", "job"]) == 2
    assert (
        capsys.readouterr().err
        == "error: --cfg prints the configuration of one run: give lambda2 one value, or write a list as lambda2=[0,1]\n"
    )
    assert list(workplace.iterdir()) == []


def test_a_link_to_nothing_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to("nowhere")
    with pytest.raises(UserError, match="checkpoint=.*moved: this is a link to nowhere, which is not there$"):
        make_plan(conf_dir(), parse_arguments(["task=restore", f"input={tmp_path}", f"checkpoint={tmp_path / 'moved'}"]))
