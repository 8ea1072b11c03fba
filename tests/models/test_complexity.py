"""Counting: closed forms, the published sizes of Stable Diffusion 2.1, and that counting without weights counts the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.complexity import PARTS, count_macs, measure_macs, measure_parameters
from osediff_exp.models.empty_backbone import empty_backbone, text_inputs
from osediff_exp.models.generator import OneStepGenerator


@pytest.fixture(scope="module")
def sd21() -> Backbone:
    return empty_backbone("sd21")


@pytest.fixture(scope="module")
def sd21_generator(sd21: Backbone) -> OneStepGenerator:
    return make_generator(sd21)


def make_generator(backbone: Backbone, **settings: int) -> OneStepGenerator:
    with torch.device(backbone.text_encoder.device):
        return OneStepGenerator(**{"backbone": backbone, "timestep": 200} | settings)


# ---- the unit


def test_a_convolution_takes_kernel_times_channels_macs_per_pixel() -> None:
    image, conv = torch.zeros(2, 3, 8, 10, device="meta"), nn.Conv2d(3, 5, 3, padding=1, device="meta")
    assert sum(count_macs(lambda: conv(image)).values()) == 2 * 8 * 10 * 9 * 3 * 5


def test_a_linear_layer_takes_inputs_times_outputs_macs() -> None:
    layer = nn.Linear(7, 11, device="meta")
    assert sum(count_macs(lambda: layer(torch.zeros(4, 7, device="meta"))).values()) == 4 * 7 * 11


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_attention_takes_two_products_of_length_squared_times_width(device: str) -> None:
    q = torch.zeros(1, 2, 16, 8, device=device)
    assert sum(count_macs(lambda: F.scaled_dot_product_attention(q, q, q)).values()) == 2 * 2 * 16 * 16 * 8


# ---- Stable Diffusion 2.1


def test_the_architecture_has_the_published_sizes_and_schedule(sd21: Backbone) -> None:
    sizes = [sum(p.numel() for p in part.parameters()) for part in (sd21.unet, sd21.vae, sd21.text_encoder)]
    assert sizes == [865_910_724, 83_653_863, 340_387_840]
    assert (sd21.vae_factor, sd21.size_multiple, sd21.scaling_factor) == (8, 64, pytest.approx(0.18215))
    assert sd21.schedule.terminal_gain == pytest.approx(14.65, abs=5e-3)
    assert sd21.schedule.prediction_type == "epsilon"
    assert text_inputs(sd21).shape == (1, 77)


@pytest.mark.slow
def test_nothing_of_it_takes_memory(sd21: Backbone, sd21_generator: OneStepGenerator) -> None:
    assert {parameter.device.type for module in (sd21, sd21_generator) for parameter in module.parameters()} == {"meta"}


@pytest.mark.slow
def test_the_parameters_of_rank_4(sd21: Backbone, sd21_generator: OneStepGenerator) -> None:
    counted = measure_parameters(sd21, sd21_generator)
    assert counted.lora == {"unet": 4_055_712, "vae_encoder": 369_356}
    assert counted.trainable == 4_055_712 + 369_356 + 11_840  # conv_in
    assert counted.parts["vae_encoder"] + counted.parts["vae_decoder"] == 83_653_863
    assert counted.total == 865_910_724 + 83_653_863 + 340_387_840 + 4_055_712 + 369_356


@pytest.mark.slow
def test_the_macs_at_512_pixels(sd21: Backbone, sd21_generator: OneStepGenerator) -> None:
    macs = measure_macs(sd21, sd21_generator, size=512)
    expected = {"vae_encoder": 558.3, "unet": 402.1, "vae_decoder": 1257.3, "text_encoder": 22.6}
    assert {part: round(count / 1e9, 1) for part, count in macs.merged.items()} == expected
    assert sum(macs.unmerged.values()) / 1e9 == pytest.approx(2253.9, abs=0.05)


# ---- any backbone


def test_without_weights_the_counts_are_the_same(backbone: Backbone, backbone_folder: Path) -> None:
    empty = empty_backbone(str(backbone_folder))
    assert {name: p.shape for name, p in empty.named_parameters()} == {name: p.shape for name, p in backbone.named_parameters()}
    assert measure_parameters(empty, make_generator(empty)) == measure_parameters(backbone, make_generator(backbone))
    assert measure_macs(empty, make_generator(empty), size=16) == measure_macs(backbone, make_generator(backbone), size=16)


def test_merged_lora_costs_nothing_and_rank_doubles_what_it_costs_before(backbone: Backbone) -> None:
    bare = measure_macs(backbone, make_generator(backbone, unet_rank=0, vae_rank=0), size=16)
    assert bare.merged == bare.unmerged
    extra = []
    for rank in (2, 4):
        macs = measure_macs(backbone, make_generator(backbone, unet_rank=rank, vae_rank=rank), size=16)
        assert macs.merged == bare.merged
        extra.append(sum(macs.unmerged.values()) - sum(macs.merged.values()))
    assert extra[1] == 2 * extra[0] > 0


def test_what_lies_in_no_known_part_is_counted_as_other(backbone: Backbone) -> None:
    generator = make_generator(backbone)
    generator.extra = nn.Linear(3, 5)
    counted = measure_parameters(backbone, generator)
    assert counted.parts["other"] == 3 * 5 + 5
    assert set(counted.parts) == {*PARTS, "other", "text_encoder"}
    whole = sum(p.numel() for part in (backbone.unet, backbone.vae, backbone.text_encoder, generator.extra) for p in part.parameters())
    assert sum(counted.parts.values()) == whole


@pytest.mark.parametrize(("size", "fits"), [(0, 4), (-4, 4), (18, 16), (19, 20)])
def test_a_size_the_backbone_cannot_take_is_the_users_mistake(backbone: Backbone, size: int, fits: int) -> None:
    with pytest.raises(UserError, match=rf"complexity\.size={size} must be a positive multiple of 4, the backbone's: {fits} fits"):
        measure_macs(backbone, make_generator(backbone), size=size)


def test_an_unknown_architecture_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"backbone\.architecture=sd2\.1 is unknown\. Did you mean 'sd21'\?.*embedded:tiny"):
        empty_backbone("sd2.1")


def test_a_folder_without_configurations_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no readable scheduler/scheduler_config\.json \(FileNotFoundError\)"):
        empty_backbone(str(tmp_path))


def test_an_architecture_reads_no_prompts(sd21: Backbone) -> None:
    with pytest.raises(UserError, match="cannot read prompts"):
        sd21.encode_prompts(["a tree"])
