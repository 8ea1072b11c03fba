"""The package's own checkpoints by name, and trainings that start from a checkpoint's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_parts import Train, output
from safetensors.torch import load_file
from tiny_parts import make_generator, random_backbone

from osediff_exp.checkpoints import named
from osediff_exp.checkpoints.fitting import trained_tensors
from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.lora_folder import UNET_FILE, write_lora_folder
from osediff_exp.checkpoints.named import checkpoint_path, embedded_names, name_of
from osediff_exp.checkpoints.starting import start_from
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.restoration.specs import name_restorers


@pytest.fixture
def own(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose restorer is a trained random generator."""
    monkeypatch.setattr(named, "_FOLDER", tmp_path / "weights")
    write_lora_folder(train(), tmp_path / "weights" / "tiny_restorer", dtype="float16")
    return tmp_path / "weights" / "tiny_restorer"


def test_a_name_means_the_package_s_checkpoint_even_beside_a_file_of_that_name(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "embedded").mkdir()
    assert checkpoint_path("embedded") == own
    assert checkpoint_path("./embedded") == Path("embedded")
    assert name_of(own) == "embedded"
    assert name_of(tmp_path) is None


def test_a_wrong_name_and_a_missing_folder_are_one_line(own: Path) -> None:
    with pytest.raises(UserError, match=r"checkpoint embedded:strat: .* carries embedded only: give a path\."):
        checkpoint_path("embedded:strat")
    with pytest.raises(UserError, match=r"checkpoint embedded:start: .* carries embedded only: give a path\."):
        checkpoint_path("embedded:start")


def test_the_package_s_restorer_loads_by_name_from_half_precision(own: Path, train: Train) -> None:
    loaded = load_checkpoint("embedded")
    assert all(tensor.dtype == torch.float16 for tensor in load_file(own / UNET_FILE).values())
    for name, tensor in trained_tensors(loaded.generator).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, trained_tensors(train().generator)[name].half().float())


def test_it_stands_in_a_table_of_restorers_under_its_name(own: Path) -> None:
    specs = name_restorers([(None, "checkpoint:embedded"), (None, "bicubic")])
    assert list(specs) == ["embedded", "bicubic"]
    assert specs["embedded"].path == own


def generator(backbone: Backbone, **settings: object) -> OneStepGenerator:
    made = make_generator(backbone, **settings)
    assert isinstance(made, OneStepGenerator)
    return made


def test_a_training_starts_with_the_checkpoint_s_weights_and_its_own_backbone(train: Train, tmp_path: Path, backbone: Backbone) -> None:
    write_lora_folder(train(), tmp_path / "lora")
    started = generator(backbone)
    before = output(train(), started)
    assert start_from(tmp_path / "lora", started, backbone, {"unet_rank": 4}) == 7
    assert torch.equal(output(train(), started), output(train()))
    assert not torch.equal(before, output(train()))
    assert all(parameter.requires_grad for parameter in started.trainable_parameters())


def test_other_ranks_factors_or_layers_are_refused_and_nothing_is_copied(train: Train, tmp_path: Path, backbone: Backbone) -> None:
    settings = {"unet_rank": 4, "unet_alpha": "rank"}
    write_lora_folder(train(**settings), tmp_path / "lora")
    other = generator(backbone)
    before = {name: tensor.clone() for name, tensor in trained_tensors(other).items()}
    with pytest.raises(UserError, match=r"init=.*lora has unet_rank=4, this run generator.unet_rank=2: set generator.unet_rank=4"):
        start_from(tmp_path / "lora", other, backbone, {"unet_rank": 2})
    with pytest.raises(UserError, match=r"has unet_alpha=rank, this run generator.unet_alpha=fixed"):
        start_from(tmp_path / "lora", other, backbone, {"unet_rank": 4, "unet_alpha": "fixed"})
    with pytest.raises(UserError, match=r"does not fit: .*give init=.* the generator settings of its run"):
        start_from(tmp_path / "lora", generator(backbone, train_vae_encoder=False), backbone, {"train_vae_encoder": False})
    assert all(torch.equal(before[name], tensor) for name, tensor in trained_tensors(other).items())


@pytest.mark.parametrize("part", ["train_vae_encoder", "train_vae_decoder", "train_unet", "train_conv_in"])
def test_a_part_that_trains_here_alone_begins_as_initialised(train: Train, tmp_path: Path, backbone: Backbone, part: str) -> None:
    parts = {"train_vae_encoder": True, "train_vae_decoder": True, "train_unet": True, "train_conv_in": True}
    write_lora_folder(train(**parts | {part: False}), tmp_path / "lora")
    started = generator(backbone, **parts)
    fresh = {name: tensor.detach().clone() for name, tensor in started.own_tensors().items()}
    assert start_from(tmp_path / "lora", started, backbone, parts) == 7
    saved = load_checkpoint(tmp_path / "lora", backbone=backbone).generator.own_tensors()
    own = started.own_tensors()
    assert own.keys() > saved.keys()
    assert all(torch.equal(own[name], saved[name] if name in saved else fresh[name]) for name in own)


def test_a_start_on_another_backbone_says_that_null_starts_from_nothing(train: Train, tmp_path: Path) -> None:
    write_lora_folder(train(), tmp_path / "lora")
    other = random_backbone(tmp_path / "other", seed=1)
    with pytest.raises(UserError, match=r"init=.*lora: .*another backbone .*or start from nothing with init=null"):
        start_from(tmp_path / "lora", generator(other), other, {})


def test_the_package_carries_a_restorer_and_a_start_of_at_most_four_megabytes() -> None:
    assert embedded_names() == ["embedded", "embedded:start"]
    for name in embedded_names():
        folder = checkpoint_path(name)
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 4e6
        loaded = load_checkpoint(name)
        assert loaded.steps > 0
        assert loaded.backbone.source == "embedded:tiny"
