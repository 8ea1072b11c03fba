"""The one-step generator against its formula, and what it trains."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraLayer
from tiny_parts import make_generator, random_backbone, wake_lora
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.generator import OneStepGenerator


def picture(height: int = 16, width: int = 16, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(8)) * 2 - 1


def embeds(backbone: Backbone, batch: int = 2) -> Tensor:
    return backbone.encode_prompts(["sharp photo"] * batch)


def fixed_noise(purpose: str, shape: tuple[int, ...]) -> Tensor:
    assert purpose == "posterior"
    return torch.randn((2, *shape), generator=torch.Generator().manual_seed(9))


@torch.no_grad()
def by_hand(backbone: Backbone, lq: Tensor, noise: Tensor | float, timestep: int = 250) -> tuple[Tensor, Tensor]:
    """Return z_hat and x_hat from the frozen networks and the paper's formula, in float64 from the U-Net's output on."""
    mean, logvar = backbone.vae.quant_conv(backbone.vae.encoder(lq)).chunk(2, dim=1)
    z = (mean + torch.exp(0.5 * logvar.clamp(-30, 20)) * noise) * backbone.vae.config.scaling_factor
    output = backbone.unet(z, timestep, embeds(backbone, len(lq))).sample.double()
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)[timestep]
    if backbone.schedule.prediction_type == "epsilon":
        z_hat = (z.double() - (1 - abar).sqrt() * output) / abar.sqrt()
    else:
        z_hat = abar.sqrt() * z.double() - (1 - abar).sqrt() * output
    image = backbone.vae.decoder(backbone.vae.post_quant_conv((z_hat / backbone.vae.config.scaling_factor).float()))
    return z_hat, image.clamp(-1, 1)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_an_untrained_generator_is_the_frozen_path(kind: Any, backbone_folder: Path) -> None:
    backbone = load_backbone(sources=[str(backbone_folder)], prediction_type=kind)
    lq = picture()
    with torch.no_grad():
        mode, sample = make_generator(backbone)(lq, embeds(backbone)), make_generator(backbone)(lq, embeds(backbone), fixed_noise)
    for output, noise in ((mode, 0.0), (sample, fixed_noise("posterior", (4, 8, 8)))):
        z_hat, image = by_hand(backbone, lq, noise)
        assert torch.allclose(output.latent.double(), z_hat, atol=1e-5)
        assert torch.allclose(output.image, image, atol=1e-5)
    assert not torch.allclose(mode.latent, sample.latent, atol=1e-3)


def test_v_and_epsilon_are_different_readings_of_the_same_output(backbone: Backbone, backbone_folder: Path) -> None:
    v_backbone = load_backbone(sources=[str(backbone_folder)], prediction_type="v_prediction")
    latents = [make_generator(parts)(picture(), embeds(parts)).latent for parts in (backbone, v_backbone)]
    assert not torch.allclose(*latents, atol=1e-2)


def test_without_noise_and_with_the_mode_the_result_is_deterministic(backbone: Backbone) -> None:
    generator = make_generator(backbone)
    wake_lora(generator)
    first = generator(picture(), embeds(backbone)).image
    torch.manual_seed(99)
    assert torch.equal(generator(picture(), embeds(backbone)).image, first)
    generator.latent = "mode"
    assert torch.equal(generator(picture(), embeds(backbone), fixed_noise).image, first)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (20, 12), (18, 10)])
def test_pictures_need_not_be_square(backbone: Backbone, height: int, width: int) -> None:
    output = make_generator(backbone)(picture(height, width), embeds(backbone))
    assert output.image.shape == (2, 3, height, width)
    assert output.latent.shape == (2, 4, height // 2, width // 2)
    assert output.image.abs().max() <= 1


def test_a_samples_result_does_not_depend_on_its_batch(backbone: Backbone) -> None:
    generator = make_generator(backbone)
    wake_lora(generator)
    whole = generator(picture(batch=3), embeds(backbone, 3)).image
    assert torch.allclose(whole[1:2], generator(picture(batch=3)[1:2], embeds(backbone, 1)).image, atol=1e-5)


def parts_trained(generator: OneStepGenerator) -> set[str]:
    names = [name for name, parameter in generator.named_parameters() if parameter.requires_grad]
    kinds = {
        "vae encoder": lambda name: name.startswith(("vae.encoder", "vae.quant_conv")),
        "vae decoder": lambda name: name.startswith(("vae.decoder", "vae.post_quant_conv")),
        "conv_in": lambda name: name in ("unet.conv_in.base_layer.weight", "unet.conv_in.base_layer.bias"),
        "unet": lambda name: name.startswith("unet.") and "lora_" in name,
    }
    found = {kind for name in names for kind, matches in kinds.items() if matches(name)}
    assert all(any(matches(name) for matches in kinds.values()) for name in names)
    return found


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({}, {"vae encoder", "unet", "conv_in"}),
        ({"train_conv_in": False}, {"vae encoder", "unet"}),
        ({"train_unet": False}, {"vae encoder"}),
        ({"unet_rank": 0}, {"vae encoder"}),
        ({"train_vae_encoder": False}, {"unet", "conv_in"}),
        ({"vae_rank": 0}, {"unet", "conv_in"}),
        ({"train_vae_decoder": True}, {"vae encoder", "vae decoder", "unet", "conv_in"}),
        ({"train_vae_encoder": False, "train_vae_decoder": True}, {"vae decoder", "unet", "conv_in"}),
        ({"train_vae_encoder": False, "train_unet": False}, set()),
    ],
)
def test_each_switch_trains_what_it_says(backbone: Backbone, settings: dict[str, Any], parts: set[str]) -> None:
    assert parts_trained(make_generator(backbone, **settings)) == parts


def test_each_network_may_have_a_lora_factor_of_its_own(backbone: Backbone) -> None:
    generator = make_generator(backbone, unet_rank=2, vae_rank=2, alpha="fixed", lora_alpha=8, vae_alpha="rank")
    for network, factor in ((generator.unet, 4.0), (generator.vae, 1.0)):
        layers = [layer for layer in network.modules() if isinstance(layer, LoraLayer)]
        assert layers
        assert {scale for layer in layers for scale in layer.scaling.values()} == {factor}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_trainable_tensor_and_nothing_else(backbone: Backbone, checkpointing: bool) -> None:
    generator = make_generator(backbone, train_vae_decoder=True, gradient_checkpointing=checkpointing)
    wake_lora(generator)
    before = {name: parameter.clone() for name, parameter in backbone.named_parameters()}
    output = generator(picture(), embeds(backbone), fixed_noise)
    (output.image.square().mean() + output.latent.square().mean()).backward()
    for name, parameter in generator.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        if parameter.requires_grad:
            assert parameter.grad is not None
            assert parameter.grad.abs().max() > 0, name
    torch.optim.AdamW(generator.trainable_parameters(), lr=0.1).step()
    assert all(torch.equal(parameter, before[name]) for name, parameter in backbone.named_parameters())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert not torch.equal(generator.unet.conv_in.base_layer.weight, backbone.unet.conv_in.weight)


def test_recomputing_any_part_changes_no_bit(backbone: Backbone) -> None:
    def results(parts: Any) -> list[Tensor]:
        generator = make_generator(backbone, train_vae_decoder=True, gradient_checkpointing=parts)
        wake_lora(generator)
        loss = generator(picture(), embeds(backbone)).image.square().mean()
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in generator.trainable_parameters())]  # type: ignore[list-item]

    plain = results(False)
    for parts in (True, [], ["encoder"], ["unet"], ["decoder"], ["unet", "decoder"]):
        assert all(map(torch.equal, results(parts), plain)), parts


@pytest.mark.parametrize("parts", [True, False, [], ["encoder"], ["unet"], ["decoder"], ["encoder", "unet", "decoder"]])
def test_only_the_parts_named_are_recomputed(backbone: Backbone, parts: Any) -> None:
    generator = make_generator(backbone, gradient_checkpointing=parts)
    networks = {"encoder": generator.vae.encoder, "unet": generator.unet, "decoder": generator.vae.decoder}
    recomputed = {
        name for name, network in networks.items() if any(getattr(part, "gradient_checkpointing", False) for part in network.modules())
    }
    assert recomputed == (set(networks) if parts is True else set(parts or []))
    assert not backbone.unet.is_gradient_checkpointing


def test_trainable_parameters_names_each_once(backbone: Backbone) -> None:
    parameters = make_generator(backbone).trainable_parameters()
    assert len({id(parameter) for parameter in parameters}) == len(parameters) > 0


def test_a_bfloat16_backbone_trains_in_float32(tmp_path: Path) -> None:
    full = random_backbone(tmp_path / "tokenizer")
    half = copy.deepcopy(full).to(torch.bfloat16)
    generator = make_generator(half)
    output = generator(picture(), embeds(half), fixed_noise)
    reference = make_generator(full)(picture(), embeds(full), fixed_noise)
    assert output.image.dtype == output.latent.dtype == torch.float32
    assert torch.isfinite(output.image).all()
    assert torch.allclose(output.latent, reference.latent, atol=0.1)
    assert {parameter.dtype for parameter in generator.trainable_parameters()} == {torch.float32}
    assert {parameter.dtype for parameter in generator.parameters() if not parameter.requires_grad} == {torch.bfloat16}
    before = [parameter.detach().clone() for parameter in generator.unet.conv_in.parameters()]
    output.image.square().mean().backward()
    torch.optim.AdamW(generator.trainable_parameters(), lr=5e-5).step()
    assert all((a != b).any() for a, b in zip(before, generator.unet.conv_in.parameters(), strict=True) if b.grad.abs().max() > 0)


def test_half_precision_is_for_the_networks_and_not_for_the_latent(backbone: Backbone) -> None:
    generator, exact = make_generator(backbone), make_generator(backbone).encode(picture(), fixed_noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = generator.encode(picture(), fixed_noise)
    assert z.dtype == torch.float32
    assert not torch.equal(z, z.bfloat16().float())  # else the noise was added in half precision
    assert torch.allclose(z, exact, atol=0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"timestep": 1000}, r"0\.\.999"),
        ({"timestep": -1}, r"0\.\.999"),
        ({"latent": "median"}, "sample or mode"),
        ({"alpha": "x"}, "rslora"),
    ],
)
def test_wrong_settings_are_the_users_mistake(backbone: Backbone, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_generator(backbone, **settings)
