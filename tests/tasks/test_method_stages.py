"""The method's group of the configuration, and the runs of earlier stages that a method needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from osediff_exp.checkpoints.training_identity import training_of
from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.preflight import make_plan
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.methods.osediff import OSEDiff
from osediff_exp.methods.resshift.method import ResShift
from osediff_exp.methods.sinsr.method import SinSR
from osediff_exp.models.backbone import Backbone
from osediff_exp.tasks.methods import build_method
from osediff_exp.tasks.stages import earlier_runs
from osediff_exp.tasks.train import build_module

CONF = Path(__file__).parents[2] / "conf"
register_resolvers()


def configuration(backbone_folder: Path, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", [f"backbone.loader.sources=[{backbone_folder}]", "metrics=psnr_ssim", *overrides])


def finished_run(backbone: Backbone, backbone_folder: Path, folder: Path, *overrides: str) -> Path:
    """Write a run folder as a finished training leaves it."""
    config = configuration(backbone_folder, *overrides)
    module = build_module(config, backbone)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    (folder / "config.yaml").write_text(yaml.safe_dump(OmegaConf.to_container(config, resolve=True)))
    (folder / "result.json").write_text("{}")
    note_overrides(folder, *overrides)
    return folder


def note_overrides(folder: Path, *overrides: str) -> None:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_each_option_builds_its_method(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    assert isinstance(build_method(configuration(backbone_folder, "loss/terms=[mse]"), backbone), OSEDiff)
    resshift = build_method(configuration(backbone_folder, "method=resshift", "generator.T=6"), backbone)
    assert isinstance(resshift, ResShift)
    assert (resshift.generator.steps, resshift.generator.schedule.T) == (6, 6)


@pytest.mark.parametrize("backbone_name", ["tiny", "sd21"])
def test_a_method_takes_osediff_s_keys_and_terms_with_it(backbone_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that would have no effect is unknown."""
    monkeypatch.chdir(tmp_path)
    arguments = ["method=resshift", f"backbone={backbone_name}"]
    make_plan(CONF, parse_arguments([*arguments, "generator.T=4", "generator.m=0.2"]))
    for key in ("generator.timestep=3", "loss.terms.vsd.rank=4"):
        with pytest.raises(UserError, match=f"unknown key '{key.partition('=')[0]}'"):
            make_plan(CONF, parse_arguments([*arguments, key]))


def test_the_teacher_is_found_in_the_same_sweep(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    """By method and stage among the finished runs; one of the same seed goes first."""
    short = ["generator.T=3", "generator.m=0.2"]
    student = configuration(backbone_folder, "method=sinsr", "seed=2", *short)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(UserError, match=r"method=sinsr needs a finished run of method=resshift: give method\.needs\.teacher=RUN"):
        build_method(student, backbone, tmp_path / "3_sinsr")
    finished_run(backbone, backbone_folder, tmp_path / "0_osediff", "loss/terms=[mse]")
    other_seed = finished_run(backbone, backbone_folder, tmp_path / "1_resshift", "method=resshift", "seed=1", *short)
    found = build_method(student, backbone, tmp_path / "3_sinsr")
    assert isinstance(found, SinSR)
    assert torch.equal(found.teacher.unet.conv_in.weight, weights(other_seed)["generator.unet.conv_in.weight"])
    same_seed = finished_run(backbone, backbone_folder, tmp_path / "2_resshift", "method=resshift", "seed=2", *short)
    (tmp_path / "3_sinsr").mkdir()
    found = build_method(student, backbone, tmp_path / "3_sinsr")
    assert isinstance(found, SinSR)
    assert torch.equal(found.teacher.unet.conv_in.weight, weights(same_seed)["generator.unet.conv_in.weight"])
    assert not any(weight.requires_grad for weight in found.teacher.parameters())


def test_the_teacher_has_the_students_other_overrides(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    """Of ``-m method=resshift,sinsr trainer.max_steps=5,6`` each student takes the teacher that was trained as long as itself."""
    (tmp_path / "sweep.json").write_text("{}")
    short = ["generator.T=3", "generator.m=0.2"]
    for place, steps in enumerate((5, 6)):
        folder = tmp_path / f"{place}_method=resshift"
        finished_run(backbone, backbone_folder, folder, "method=resshift", f"trainer.max_steps={steps}", *short)
    student = configuration(backbone_folder, "method=sinsr", *short)
    for steps, expected in ((5, "0_method=resshift"), (6, "1_method=resshift")):
        folder = tmp_path / f"{steps}_student"
        note_overrides(folder, "method=sinsr", f"trainer.max_steps={steps}", *short)
        assert earlier_runs(student, folder) == {"teacher": str(tmp_path / expected)}
    note_overrides(tmp_path / "7_student", "method=sinsr", "trainer.max_steps=7", *short)
    with pytest.raises(UserError, match=r"give method\.needs\.teacher=RUN, or put it before this one"):
        earlier_runs(student, tmp_path / "7_student")


def test_a_checkpoint_says_which_training_its_teacher_is_of(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    """So that students of one seed each are joined in a report only where their teachers were trained alike."""
    keys = []
    for number, teacher in enumerate((["seed=1"], ["seed=2"], ["seed=1", "trainer.max_steps=7"])):
        run = finished_run(backbone, backbone_folder, tmp_path / str(number), "method=resshift", "generator.T=3", *teacher)
        config = configuration(backbone_folder, "method=sinsr", teacher[0], "generator.T=3", f"method.needs.teacher={run}")
        training = training_of(build_module(config, backbone, tmp_path).record["config"])
        assert training is not None
        keys.append(training.key)
    assert keys[0] == keys[1] != keys[2]


def test_a_single_run_takes_nothing_that_stands_beside_it(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    finished_run(backbone, backbone_folder, tmp_path / "yesterday", "method=resshift", "generator.T=3")
    with pytest.raises(UserError, match=r"give method\.needs\.teacher=RUN$"):
        earlier_runs(configuration(backbone_folder, "method=sinsr", "generator.T=3"), tmp_path / "today")


def test_a_missing_run_is_named_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()
    with pytest.raises(UserError, match=r"method\.needs\.teacher=.*teachr: there is no such file or folder\. Did you mean 'teacher'"):
        make_plan(CONF, parse_arguments(["method=sinsr", f"method.needs.teacher={tmp_path / 'teachr'}"]))


def test_a_run_that_cannot_be_read_is_named_with_its_key(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    config = configuration(backbone_folder, "method=sinsr", f"method.needs.teacher={tmp_path / 'nowhere'}")
    with pytest.raises(UserError, match=r"method\.needs\.teacher=.*nowhere: checkpoint .*there is no such file or folder"):
        build_method(config, backbone)
