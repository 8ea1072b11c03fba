"""osediff.pkl: read by a small copy of the released code's way of reading it, exact round trips, and what is refused."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_parts import Train, assert_same, output
from diffusers import AutoencoderKL, UNet2DConditionModel
from peft import LoraConfig
from tiny_parts import random_backbone
from torch import nn

from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.released import released_content, write_released
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone


def read_as_released(path: Path, backbone_folder: Path) -> tuple[nn.Module, nn.Module]:
    """Return U-Net and VAE with the file's adapters: add_adapter, copy what is named lora or conv_in, activate all."""
    unet = UNet2DConditionModel.from_pretrained(backbone_folder, subfolder="unet", torch_dtype=torch.float32)
    vae = AutoencoderKL.from_pretrained(backbone_folder, subfolder="vae", torch_dtype=torch.float32)
    model = torch.load(path, weights_only=True)
    names = {"unet": ["encoder", "decoder", "others"], "vae": ["encoder"]}
    for part, network in (("unet", unet), ("vae", vae)):
        for name in names[part]:
            modules = model[f"{part}_lora_{name}_modules"]
            config = LoraConfig(r=model[f"rank_{part}"], init_lora_weights="gaussian", target_modules=modules)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network.add_adapter(config, adapter_name=f"default_{name}")
        for name, parameter in network.named_parameters():
            if "lora" in name or (part == "unet" and "conv_in" in name):
                parameter.data.copy_(model[f"state_dict_{part}"][name])
        network.set_adapter([f"default_{name}" for name in names[part]])
    return unet.eval(), vae.eval()


def released_output(loaded: Any, path: Path, backbone_folder: Path) -> torch.Tensor:
    """Return what the released code's networks compute, through the generator's own formula."""
    generator = copy.copy(loaded.generator)
    generator._modules = dict(generator._modules)
    generator.unet, generator.vae = read_as_released(path, backbone_folder)
    return output(loaded, generator)


def test_the_released_code_reads_it_and_computes_the_same(train: Train, tmp_path: Path, backbone_folder: Path) -> None:
    trained = train()
    exported = write_released(trained, tmp_path / "osediff.pkl")
    assert torch.equal(released_output(trained, tmp_path / "osediff.pkl", backbone_folder), output(trained))
    content = torch.load(tmp_path / "osediff.pkl", weights_only=True)
    assert exported.num_tensors == len(content["state_dict_unet"]) + len(content["state_dict_vae"])
    assert exported.params == sum(parameter.numel() for parameter in trained.generator.trainable_parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["osediff.pkl"]


def test_there_and_back_is_exact(train: Train, settings: dict[str, Any], tmp_path: Path) -> None:
    trained = train(unet_rank=2, vae_rank=3)
    write_released(trained, tmp_path / "osediff.pkl")
    loaded = load_checkpoint(tmp_path / "osediff.pkl", settings=settings)
    assert_same(trained, loaded)
    assert (loaded.format, loaded.steps) == ("released", 0)
    assert loaded.config["generator"] | {"unet_rank": 2, "vae_rank": 3} == loaded.config["generator"]
    write_released(loaded, tmp_path / "again.pkl")
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("osediff.pkl", "again.pkl"))
    assert list(first) == list(second)
    for key in first:
        if key.startswith("state_dict"):
            assert list(first[key]) == list(second[key])
            assert all(torch.equal(tensor, second[key][name]) for name, tensor in first[key].items())
        else:
            assert first[key] == second[key]


@pytest.mark.parametrize(
    ("changes", "tolerance"), [({"alpha": "rank"}, 0), ({"alpha": "rslora", "unet_rank": 3}, 1e-5), ({"lora_alpha": 5}, 1e-5)]
)
def test_another_scale_is_folded_into_the_weights(
    train: Train, tmp_path: Path, backbone_folder: Path, changes: dict[str, Any], tolerance: float
) -> None:
    trained = train(**changes)
    write_released(trained, tmp_path / "osediff.pkl")
    difference = released_output(trained, tmp_path / "osediff.pkl", backbone_folder) - output(trained)
    assert difference.abs().max() <= tolerance


@pytest.mark.parametrize("changes", [{"unet_rank": 0}, {"train_vae_encoder": False}, {"train_conv_in": False}])
def test_an_untrained_part_becomes_an_adapter_that_adds_zero(
    train: Train, settings: dict[str, Any], tmp_path: Path, backbone_folder: Path, changes: dict[str, Any]
) -> None:
    trained = train(**changes)
    write_released(trained, tmp_path / "osediff.pkl")
    assert torch.equal(released_output(trained, tmp_path / "osediff.pkl", backbone_folder), output(trained))
    assert torch.equal(output(load_checkpoint(tmp_path / "osediff.pkl", settings=settings)), output(trained))


def test_a_trained_decoder_has_no_place(train: Train, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trained VAE decoder \(decoder\..*format=lora or format=merged"):
        write_released(train(train_vae_decoder=True), tmp_path / "osediff.pkl")
    with pytest.raises(UserError, match="trained VAE decoder"):
        write_released(train(train_vae_decoder=True, train_vae_encoder=False), tmp_path / "osediff.pkl")
    assert list(tmp_path.iterdir()) == []


def test_no_file_is_overwritten(train: Train, tmp_path: Path) -> None:
    (tmp_path / "osediff.pkl").write_text("the authors' own")
    with pytest.raises(UserError, match="osediff.pkl exists"):
        write_released(train(), tmp_path / "osediff.pkl")
    assert (tmp_path / "osediff.pkl").read_text() == "the authors' own"


# ---- reading


def test_the_released_lists_name_vae_modules_several_times_and_older_files_are_no_zip(
    train: Train, settings: dict[str, Any], tmp_path: Path
) -> None:
    trained = train()
    content = released_content(trained)
    content["vae_lora_encoder_modules"] = content["vae_lora_encoder_modules"] * 3
    torch.save(content, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    assert_same(trained, load_checkpoint(tmp_path / "old.pkl", settings=settings))


def test_with_a_backbone_alone_it_restores_at_the_last_timestep(train: Train, backbone: Backbone, tmp_path: Path) -> None:
    write_released(train(timestep=999), tmp_path / "osediff.pkl")
    loaded = load_checkpoint(tmp_path / "osediff.pkl", backbone=backbone)
    assert loaded.generator.timestep == 999
    assert loaded.backbone is backbone
    assert loaded.prompts(torch.zeros(1, 3, 8, 8), ["x"]) == [""]
    with pytest.raises(UserError, match="names no backbone"):
        load_checkpoint(tmp_path / "osediff.pkl")


def changed(content: dict[str, Any], case: str) -> dict[str, Any]:
    """Return the content with one thing wrong."""
    unet = content["state_dict_unet"]
    if case == "no rank":
        del content["rank_vae"]
    if case == "more keys":
        content["optimizer"] = {}
    if case == "rank of text":
        content["rank_unet"] = "4"
    if case == "list":
        content["unet_lora_others_modules"] = content["unet_lora_others_modules"][1:]
    if case == "tensor":
        unet.pop("conv_out.lora_A.default_decoder.weight")
        unet.pop("conv_out.lora_B.default_decoder.weight")
    if case == "half an adapter":
        unet.pop("conv_out.lora_B.default_decoder.weight")
    if case == "foreign tensor":
        unet["conv_in.extra"] = torch.zeros(1)
    if case == "no tensor":
        unet["conv_in.base_layer.bias"] = 3
    if case == "shape":
        unet["conv_in.base_layer.weight"] = torch.zeros(9, 4, 3, 3)
    if case == "rank":
        content["rank_unet"] = 2
    return content


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("no rank", "lacks 'rank_vae'"),
        ("more keys", "unknown key 'optimizer'"),
        ("rank of text", "rank_unet=4 is no LoRA rank"),
        ("list", r"module mid_block\S+ of unet_lora_others_modules has tensors and is not listed \(1 such"),
        ("tensor", r"module conv_out of unet_lora_decoder_modules is listed and has no tensors \(1 such"),
        ("half an adapter", r"the checkpoint lacks unet.conv_out.lora_B.default_decoder.weight \(1 such"),
        ("foreign tensor", r"this configuration lacks unet.conv_in.extra \(1 such"),
        ("no tensor", "unet.conv_in.base_layer.bias is no tensor"),
        ("shape", r"another shape: unet.conv_in.base_layer.weight \(9, 4, 3, 3\) in the checkpoint, \(8, 4, 3, 3\) here"),
        ("rank", r"another shape: .* \(\d+ such tensors\); set backbone"),
    ],
)
def test_every_key_is_accounted_for(
    train: Train, settings: dict[str, Any], backbone: Backbone, tmp_path: Path, case: str, message: str
) -> None:
    torch.save(changed(released_content(train()), case), tmp_path / "osediff.pkl")
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(tmp_path / "osediff.pkl", settings=settings, backbone=backbone)
    assert "\n" not in str(caught.value)


def test_another_generator_or_a_larger_backbone_does_not_take_it(train: Train, settings: dict[str, Any], tmp_path: Path) -> None:
    write_released(train(), tmp_path / "osediff.pkl")
    other = settings | {"generator": {"_target_": "osediff_exp.models.generator.Other"}}
    with pytest.raises(UserError, match="use generator=osediff"):
        load_checkpoint(tmp_path / "osediff.pkl", settings=other)
    wider = random_backbone(tmp_path / "tokenizer")
    wider.unet = UNet2DConditionModel.from_config(wider.unet.config | {"block_out_channels": (8, 24)}).requires_grad_(False)
    with pytest.raises(UserError, match=r"another shape: unet\..*set backbone to the one it was trained on"):
        load_checkpoint(tmp_path / "osediff.pkl", settings=settings, backbone=wider)
