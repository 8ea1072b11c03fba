"""Merged models: equal to the unmerged, readable by diffusers alone, and only changed where something was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_parts import Train, assert_same, output
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.lora_folder import write_lora_folder
from osediff_exp.checkpoints.merged import merged_backbone, write_merged_folder
from osediff_exp.checkpoints.released import write_released
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone


@pytest.mark.parametrize("changes", [{}, {"alpha": "rslora", "train_vae_decoder": True}, {"train_unet": False}])
def test_it_restores_as_the_unmerged_does(train: Train, backbone: Backbone, tmp_path: Path, changes: dict[str, Any]) -> None:
    trained = train(**changes)
    exported = write_merged_folder(trained, tmp_path / "merged")
    (tmp_path / "merged").rename(tmp_path / "moved")
    loaded = load_checkpoint(tmp_path / "moved", backbone=backbone)
    assert loaded.backbone is not backbone
    assert (
        output(loaded) - output(trained)
    ).abs().max() < 5e-5  # float32: W + BA rounds otherwise than Wx + B(Ax), and how much depends on the CPU
    assert loaded.generator.trainable_parameters() == []
    assert (loaded.format, loaded.steps) == ("merged", 7)
    assert loaded.fingerprint == exported.fingerprint != trained.fingerprint
    assert exported.params == sum(parameter.numel() for parameter in loaded.backbone.parameters())
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]


def test_only_what_was_trained_changes(train: Train, backbone: Backbone) -> None:
    before = {name: weight.clone() for name, weight in backbone.named_parameters()}
    merged = dict(merged_backbone(train()).named_parameters())
    assert merged.keys() == before.keys()
    changed = {name for name in merged if not torch.equal(merged[name], before[name])}
    assert {name.split(".")[1] for name in changed if name.startswith("vae.")} == {"encoder", "quant_conv"}
    assert {name for name in changed if name.endswith("bias")} == {"unet.conv_in.bias"}
    assert not any("norm" in name or "time_emb" in name or name.startswith("text_encoder") for name in changed)
    assert all(torch.equal(weight, before[name]) for name, weight in backbone.named_parameters())
    untouched = dict(backbone.named_parameters())
    assert all(merged[name].data_ptr() == untouched[name].data_ptr() for name in merged if name.startswith("vae.decoder"))


def test_diffusers_reads_it(train: Train, tmp_path: Path) -> None:
    trained = train()
    write_merged_folder(trained, tmp_path / "merged")
    merged = merged_backbone(trained)
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "merged", subfolder="unet")
    vae = AutoencoderKL.from_pretrained(tmp_path / "merged", subfolder="vae")
    for ours, theirs in ((merged.unet, unet), (merged.vae, vae)):
        weights = dict(theirs.named_parameters())
        assert all(torch.equal(weight, weights[name]) for name, weight in ours.named_parameters())
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "merged")
    assert torch.equal(pipeline.unet.conv_in.weight, merged.unet.conv_in.weight)


def test_a_smaller_type_halves_the_file_and_keeps_the_fingerprint(train: Train, tmp_path: Path) -> None:
    trained = train()
    full = write_merged_folder(trained, tmp_path / "full")
    half = write_merged_folder(trained, tmp_path / "half", dtype="bfloat16")
    assert full == half
    for part in ("unet", "vae"):
        tensors = load_file(tmp_path / "half" / part / "diffusion_pytorch_model.safetensors")
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    loaded = load_checkpoint(tmp_path / "half")
    assert {parameter.dtype for parameter in loaded.backbone.unet.parameters()} == {torch.bfloat16}
    with pytest.raises(UserError, match="dtype=int8 is no type of weights: use float32"):
        write_merged_folder(trained, tmp_path / "x", dtype="int8")  # type: ignore[arg-type]


def test_merging_again_changes_nothing_and_lora_cannot_be_taken_out(train: Train, tmp_path: Path) -> None:
    write_merged_folder(train(), tmp_path / "merged")
    loaded = load_checkpoint(tmp_path / "merged")
    write_merged_folder(loaded, tmp_path / "again")
    assert_same(loaded, load_checkpoint(tmp_path / "again"))
    for write, name in ((write_lora_folder, "lora"), (write_released, "osediff.pkl")):
        with pytest.raises(UserError, match="merged folder cannot be taken out"):
            write(loaded, tmp_path / name)


def test_weights_that_are_not_those_written_are_refused(train: Train, tmp_path: Path) -> None:
    write_merged_folder(train(), tmp_path / "one")
    write_merged_folder(train(timestep=10, alpha="rank"), tmp_path / "two")
    (tmp_path / "one" / "unet").rename(tmp_path / "unet")
    (tmp_path / "two" / "unet").rename(tmp_path / "one" / "unet")
    with pytest.raises(UserError, match="another backbone"):
        load_checkpoint(tmp_path / "one")
    record = json.loads((tmp_path / "one" / "osediff.json").read_text())
    assert record["merged_from"]["fingerprint"] != record["backbone"]["fingerprint"]
