"""Saving, finding, loading and recognising a backbone."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import cast

import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from safetensors import safe_open
from tiny_parts import random_backbone
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models import sources
from osediff_exp.models.backbone import Backbone, DType, load_backbone, save_backbone
from osediff_exp.models.noise_schedule import NoiseSchedule


def weights(backbone: Backbone) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in backbone.named_parameters()}


def test_a_saved_backbone_comes_back_rounded_to_half_precision(tmp_path: Path) -> None:
    backbone = random_backbone(tmp_path / "tokenizer")
    before = {name: weight.clone() for name, weight in weights(backbone).items()}
    save_backbone(backbone, tmp_path / "saved")
    loaded = load_backbone(sources=[str(tmp_path / "saved")])
    assert weights(loaded).keys() == before.keys()
    for name, weight in weights(loaded).items():
        assert torch.equal(weights(backbone)[name], before[name]), "saving must not round the live weights"
        assert weight.dtype == torch.float32
        assert torch.equal(weight, before[name].half().float())
    assert torch.equal(loaded.schedule.abar(torch.arange(1000)), backbone.schedule.abar(torch.arange(1000)))
    assert torch.allclose(loaded.encode_prompts(["a tree"]), backbone.encode_prompts(["a tree"]), atol=1e-2)


def test_saving_again_replaces_the_old_model_and_leaves_nothing_unfinished(tmp_path: Path) -> None:
    for seed in (0, 1):
        backbone = random_backbone(tmp_path / "tokenizer", seed=seed)
        save_backbone(backbone, tmp_path / "saved")
    assert load_backbone(sources=[str(tmp_path / "saved")]).fingerprint() == backbone.fingerprint()
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"vae", "unet", "text_encoder", "tokenizer", "scheduler"}
    assert not (tmp_path / "saved.part").exists()


def test_the_files_hold_half_precision_and_diffusers_reads_them(backbone_folder: Path, backbone: Backbone) -> None:
    with safe_open(backbone_folder / "unet" / "diffusion_pytorch_model.safetensors", framework="pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118 - not a dictionary
    parts = ("unet", "vae", "text_encoder", "tokenizer")
    (backbone_folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **dict(_PIPELINE)}))
    pipeline = StableDiffusionPipeline.from_pretrained(backbone_folder, safety_checker=None, feature_extractor=None, dtype=torch.float32)
    for part in parts[:3]:
        theirs = dict(getattr(pipeline, part).named_parameters())
        assert all(torch.equal(theirs[name], weight) for name, weight in getattr(backbone, part).named_parameters())
    scheduler = DDPMScheduler.from_pretrained(backbone_folder, subfolder="scheduler")
    assert torch.allclose(scheduler.alphas_cumprod.double(), backbone.schedule.abar(torch.arange(1000)), atol=1e-6)
    assert scheduler.config.prediction_type == "epsilon"
    tokens = pipeline.tokenizer("sharp tree", padding="max_length").input_ids
    assert tokens == backbone.tokenizer("sharp tree", padding="max_length").input_ids


_PIPELINE = [
    ("unet", ["diffusers", "UNet2DConditionModel"]),
    ("vae", ["diffusers", "AutoencoderKL"]),
    ("text_encoder", ["transformers", "CLIPTextModel"]),
    ("tokenizer", ["transformers", "CLIPTokenizer"]),
    ("scheduler", ["diffusers", "DDPMScheduler"]),
    ("safety_checker", [None, None]),
    ("feature_extractor", [None, None]),
]


def test_everything_is_frozen_and_in_evaluation_mode(backbone: Backbone) -> None:
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())


def test_geometry(backbone: Backbone) -> None:
    assert (backbone.vae_factor, backbone.size_multiple) == (2, 4)
    assert backbone.scaling_factor == pytest.approx(0.18215)


# ---- sources


def test_the_first_source_that_has_a_model_wins(tmp_path: Path, backbone_folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    tried = [str(tmp_path / "absent" / "folder"), str(tmp_path / "empty"), str(backbone_folder), "no/such"]
    assert load_backbone(sources=tried).source == str(backbone_folder)


def test_the_package_s_own_goes_by_name_in_what_is_written() -> None:
    assert sources.source_name(sources.as_source("embedded:tiny")) == "embedded:tiny"
    assert sources.source_name(Path("/models/tiny")) == str(Path("/models/tiny"))
    assert sources.source_name("owner/name") == "owner/name"
    with pytest.raises(UserError, match=r"no embedded backbone 'tiny_start'\. Did you mean 'tiny'"):
        sources.as_source("embedded:tiny_start")


def test_no_source_is_one_line_that_names_them_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("cannot reach the hub\nmany\nlines")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        load_backbone(sources=[str(tmp_path / "absent" / "x"), str(tmp_path / "empty"), "some/model", "embedded:tinny"])
    message = str(caught.value)
    assert "\n" not in message
    for part in ("absent/x: no such folder", "empty: the folder has no unet/config.json", "some/model: cannot reach the hub", "tinny"):
        assert part in message
    assert "backbone.loader.sources=[FOLDER]" in message


def test_no_sources_at_all() -> None:
    with pytest.raises(UserError, match="backbone.loader.sources is empty"):
        load_backbone(sources=[])


def test_the_hub_is_asked_with_revision_and_cache_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda *args, **kwargs: asked.append((args, kwargs)) or str(tmp_path / "config.json")
    )
    load = sources.PartLoader(revision="abc", variant="fp16", local_files_only=True)
    assert sources.resolve_source(["some/model"], load) == "some/model"
    assert asked == [(("some/model", "unet/config.json"), {"revision": "abc", "local_files_only": True})]


def test_a_damaged_part_is_one_line(tmp_path: Path, backbone_folder: Path) -> None:
    shutil.copytree(backbone_folder, tmp_path / "damaged")
    (tmp_path / "damaged" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match=r"backbone part 'vae' of .*damaged cannot be loaded") as caught:
        load_backbone(sources=[str(tmp_path / "damaged")])
    assert "\n" not in str(caught.value)


def test_wrong_dtype_and_prediction_type_are_the_users_mistake(backbone_folder: Path) -> None:
    with pytest.raises(UserError, match="bfloat16"):
        load_backbone(sources=[str(backbone_folder)], dtype=cast("DType", "float31"))
    with pytest.raises(UserError, match="backbone.loader.prediction_type"):
        load_backbone(sources=[str(backbone_folder)], prediction_type="sample")  # type: ignore[arg-type]


# ---- noise schedule


def test_the_schedule_survives_casting_and_broadcasts_over_timesteps(backbone: Backbone) -> None:
    schedule = copy.deepcopy(backbone.schedule).to(torch.bfloat16)
    assert schedule.abar(999).dtype == torch.float64
    assert torch.equal(schedule.abar(torch.tensor([0, 999])), torch.stack([schedule.abar(0), schedule.abar(999)]))
    assert schedule.terminal_gain == pytest.approx(14.65, abs=5e-3)


def test_an_unsupported_schedule_is_the_users_mistake() -> None:
    config = {"beta_start": 0.1, "beta_end": 0.2, "beta_schedule": "squaredcos_cap_v2"}
    with pytest.raises(UserError, match="scaled_linear"):
        NoiseSchedule.from_config(config)
    with pytest.raises(UserError, match="beta_start"):
        NoiseSchedule.from_config({})


# ---- prompts


def test_each_distinct_prompt_is_encoded_once_in_order(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    tokenizer = backbone.tokenizer
    monkeypatch.setattr(backbone, "tokenizer", lambda texts, **kwargs: encoded.append(list(texts)) or tokenizer(texts, **kwargs))
    monkeypatch.setattr(backbone.tokenizer, "model_max_length", 16, raising=False)
    features = backbone.encode_prompts(["tree", "photo", "tree"])
    assert encoded == [["tree", "photo"]]
    assert features.shape == (3, 16, 16)
    assert torch.equal(features[0], features[2])
    assert not torch.allclose(features[0], features[1])
    assert torch.allclose(features[1:2], backbone.encode_prompts(["photo"]), atol=1e-6)


def test_long_prompts_are_cut_to_the_text_encoders_length(backbone: Backbone) -> None:
    assert backbone.encode_prompts(["tree " * 500]).shape == (1, 16, 16)


# ---- fingerprint


def test_the_fingerprint_is_the_same_whatever_the_dtype_on_load(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    original = random_backbone(tmp_path / "tokenizer")
    expected = original.fingerprint()
    assert len(expected) == 16
    assert backbone.fingerprint() == expected
    for dtype in ("bfloat16", "float16"):
        assert load_backbone(sources=[str(backbone_folder)], dtype=cast("DType", dtype)).fingerprint() == expected


@pytest.mark.parametrize("part", ["vae", "unet", "text_encoder"])
def test_training_any_part_changes_the_fingerprint(backbone: Backbone, part: str) -> None:
    other = copy.deepcopy(backbone)
    generator = torch.Generator().manual_seed(0)
    for parameter in getattr(other, part).parameters():
        parameter.data += 1e-3 * torch.randn(parameter.shape, generator=generator)
    assert other.fingerprint() != backbone.fingerprint()
    assert copy.deepcopy(backbone).fingerprint() == backbone.fingerprint()
