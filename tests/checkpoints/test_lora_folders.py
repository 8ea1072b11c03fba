"""LoRA folders: diffusers and PEFT compute with them what we do, and reading them again is exact."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_parts import Train, assert_same, output, picture
from diffusers import DDPMScheduler, StableDiffusionPipeline
from peft import PeftModel
from safetensors.torch import load_file, save_file

from osediff_exp.checkpoints import lora_folder
from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.lora_folder import CONV_IN_FILE, UNET_FILE, VAE_FILE, VAE_FOLDER, write_lora_folder
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone

SETTINGS = [
    {},
    {"alpha": "rslora", "unet_rank": 3, "vae_rank": 2},
    {"alpha": "rank", "train_vae_decoder": True},
    {"train_unet": False},
    {"train_vae_encoder": False, "train_conv_in": False},
]


@pytest.mark.parametrize("changes", SETTINGS)
def test_there_and_back_is_exact_to_the_bit(train: Train, tmp_path: Path, changes: dict[str, Any]) -> None:
    trained = train(**changes)
    exported = write_lora_folder(trained, tmp_path / "lora")
    loaded = load_checkpoint(tmp_path / "lora")
    assert_same(trained, loaded)
    assert (loaded.format, loaded.steps, loaded.fingerprint) == ("lora", 7, trained.fingerprint)
    assert loaded.config["generator"] == trained.config["generator"]
    assert exported.params == sum(parameter.numel() for parameter in trained.generator.trainable_parameters())
    assert exported.num_tensors == len(trained.generator.trainable_parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]


def with_conv_in(backbone: Backbone, folder: Path) -> Any:
    """Return a U-Net of diffusers' own with the trained base layer."""
    unet = copy.deepcopy(backbone.unet)
    unexpected = unet.load_state_dict(load_file(folder / CONV_IN_FILE), strict=False).unexpected_keys
    assert unexpected == []
    return unet


@torch.no_grad()
def assert_same_networks(trained: Any, unet: Any, vae: Any) -> None:
    generator = trained.generator
    text, z = trained.backbone.encode_prompts(["sharp photo"] * 2), generator.encode(picture())
    t = torch.full((2,), 250)
    assert torch.allclose(unet(z, t, text).sample, generator.unet(z, t, text).sample, atol=1e-5)
    assert not torch.allclose(unet(z, t, text).sample, trained.backbone.unet(z, t, text).sample, atol=1e-3)
    if vae is not None:
        assert torch.allclose(vae.encode(picture()).latent_dist.mean, generator.vae.encode(picture()).latent_dist.mean, atol=1e-5)


@pytest.mark.parametrize("changes", SETTINGS[:2])
def test_diffusers_and_peft_load_it(train: Train, backbone: Backbone, tmp_path: Path, changes: dict[str, Any]) -> None:
    trained = train(**changes)
    write_lora_folder(trained, tmp_path / "lora")
    unet = with_conv_in(backbone, tmp_path / "lora")
    unet.load_lora_adapter(str(tmp_path / "lora"), prefix="unet", weight_name=UNET_FILE)
    vae = PeftModel.from_pretrained(copy.deepcopy(backbone.vae), str(tmp_path / "lora" / VAE_FOLDER))
    assert_same_networks(trained, unet, vae.base_model.model)


def test_a_pipeline_loads_it(train: Train, backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    trained = train(alpha="rslora")
    write_lora_folder(trained, tmp_path / "lora")
    pipeline = StableDiffusionPipeline(
        vae=backbone.vae,
        text_encoder=copy.deepcopy(backbone.text_encoder),
        tokenizer=backbone.tokenizer,
        unet=with_conv_in(backbone, tmp_path / "lora"),
        scheduler=DDPMScheduler.from_pretrained(backbone_folder, subfolder="scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_lora_weights(str(tmp_path / "lora"))
    assert_same_networks(trained, pipeline.unet, None)


def test_a_folder_that_was_mixed_up_is_refused(train: Train, backbone: Backbone, tmp_path: Path) -> None:
    write_lora_folder(train(), tmp_path / "lora")
    tensors = load_file(tmp_path / "lora" / VAE_FILE)
    tensors["base_model.model.decoder.conv_in.lora_A.weight"] = tensors.pop("base_model.model.quant_conv.lora_A.weight")
    save_file(tensors, tmp_path / "lora" / VAE_FILE)
    with pytest.raises(UserError, match=r"decoder.conv_in.lora_A.weight of vae_lora/adapter_model.safetensors \(2 such tensors\)"):
        load_checkpoint(tmp_path / "lora", backbone=backbone)
    (tmp_path / "lora" / UNET_FILE).write_bytes(b"x" * 20)
    with pytest.raises(UserError, match="pytorch_lora_weights.safetensors cannot be read"):
        load_checkpoint(tmp_path / "lora", backbone=backbone)
    (tmp_path / "lora" / UNET_FILE).unlink()
    with pytest.raises(UserError, match="does not fit"):
        load_checkpoint(tmp_path / "lora", backbone=backbone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2, "versions": {"osediff_exp": "9.9"}}, r"has format 2, this program .* reads 1: use osediff_exp 9\.9"),
        ({"kind": "sculpture"}, "unknown kind 'sculpture'"),
        ({"backbone": {"fingerprint": "0", "source": "elsewhere"}}, "another backbone"),
    ],
)
def test_a_folder_of_another_time_or_backbone_is_refused(
    train: Train, backbone: Backbone, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_lora_folder(train(), tmp_path / "lora")
    record = json.loads((tmp_path / "lora" / "osediff.json").read_text())
    (tmp_path / "lora" / "osediff.json").write_text(json.dumps(record | change))
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path / "lora", backbone=backbone)


def test_a_record_without_its_keys_or_no_json_is_refused(tmp_path: Path) -> None:
    for text, message in (("{", "cannot be read"), ("[]", "no JSON object"), ("{}", "lacks 'backbone'")):
        (tmp_path / "osediff.json").write_text(text)
        with pytest.raises(UserError, match=message):
            load_checkpoint(tmp_path)


# ---- writing


def test_an_earlier_export_is_replaced_whole(train: Train, tmp_path: Path) -> None:
    write_lora_folder(train(), tmp_path / "lora")
    write_lora_folder(train(train_vae_encoder=False), tmp_path / "lora")
    assert {path.name for path in (tmp_path / "lora").iterdir()} == {UNET_FILE, CONV_IN_FILE, "osediff.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]


def test_an_export_names_its_layers_in_one_order(train: Train, tmp_path: Path) -> None:
    write_lora_folder(train(), tmp_path / "lora")
    names = json.loads((tmp_path / "lora" / VAE_FOLDER / "adapter_config.json").read_text())["target_modules"]
    assert len(names) > 1
    assert names == sorted(names)


def test_a_failure_leaves_the_earlier_export_and_nothing_else(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = train()
    write_lora_folder(trained, tmp_path / "lora")

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(lora_folder, "write_record", full)
    for folder in ("lora", "new"):
        with pytest.raises(OSError, match="no space"):
            write_lora_folder(train(unet_rank=1), tmp_path / folder)
    assert [path.name for path in tmp_path.iterdir()] == ["lora"]
    assert torch.equal(output(load_checkpoint(tmp_path / "lora")), output(trained))


def test_other_files_are_never_overwritten(train: Train, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="holds other files"):
        write_lora_folder(train(), tmp_path / "mine")
    with pytest.raises(UserError, match="is a file"):
        write_lora_folder(train(), tmp_path / "file")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    for _ in range(2):
        write_lora_folder(train(), tmp_path / "export")
    (tmp_path / "export" / "vae_lora" / "notes.txt").write_text("mine too")
    with pytest.raises(UserError, match="holds more than the export in it \\(vae_lora/notes.txt\\)"):
        write_lora_folder(train(), tmp_path / "export")
    assert (tmp_path / "export" / "vae_lora" / "notes.txt").is_file()


def test_a_place_that_cannot_be_written_is_said_in_a_line(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="output=.*x cannot be written .*: give another place"):
        write_lora_folder(train(), tmp_path / "file" / "x")


def test_nothing_trained_is_nothing_to_export(train: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained tensors"):
        write_lora_folder(train(train_unet=False, train_vae_encoder=False), tmp_path / "lora")
