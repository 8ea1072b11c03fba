"""The adversarial terms: objectives in closed form, spectral norms, the penalty's gradient, features of half a U-Net."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_parts import make_inputs, make_term, wake_lora
from torch import Tensor, nn

from osediff_exp.losses.adversarial import critic_objective, frozen_call, generator_objective
from osediff_exp.losses.base import LossInputs
from osediff_exp.losses.dmd_gan import DMDGANLoss
from osediff_exp.losses.gan import GANLoss, r1_penalty
from osediff_exp.losses.vsd import VSDLoss
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.discriminators.features import mid_block_features
from osediff_exp.models.discriminators.spectral import SpectralConv2d, largest_singular_value
from osediff_exp.models.discriminators.unet import UNetDiscriminator
from osediff_exp.randomness import sample_integers, sample_noise


@pytest.fixture
def inputs(backbone: Backbone) -> LossInputs:
    return make_inputs(backbone, indices=[3, 5])


# ---- objectives


def test_objectives_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.5], dtype=torch.float64), torch.tensor([-3.0, 1.0], dtype=torch.float64)
    assert generator_objective(fake, "hinge").item() == 1.0
    assert critic_objective(real, fake, "hinge").item() == (0 + 0.5) / 2 + (0 + 2) / 2
    expected = (math.log(1 + math.e**3) + math.log(1 + math.e**-1)) / 2
    assert generator_objective(fake, "softplus").item() == pytest.approx(expected)
    expected = sum(math.log(1 + math.exp(-x)) for x in (2.0, 0.5)) / 2 + sum(math.log(1 + math.exp(x)) for x in (-3.0, 1.0)) / 2
    assert critic_objective(real, fake, "softplus").item() == pytest.approx(expected)


def test_a_frozen_call_passes_the_gradient_to_the_argument_only() -> None:
    layer, x = nn.Linear(3, 2).double(), torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    frozen_call(layer, x).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, layer.weight.sum(0))
    assert layer.weight.grad is None
    assert layer.weight.requires_grad


# ---- discriminator


@pytest.mark.parametrize("seed", range(4))
def test_spectral_norm_divides_by_the_largest_singular_value(seed: int) -> None:
    torch.manual_seed(seed)
    layer = SpectralConv2d(6, 12, 3, padding=1, bias=False)
    sigma = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    assert largest_singular_value(layer.weight.flatten(1)).item() == pytest.approx(sigma.item(), rel=0.005)
    x = torch.randn(2, 6, 5, 5)
    assert torch.allclose(layer(x) * sigma, torch.nn.functional.conv2d(x, layer.weight, padding=1), rtol=0.005, atol=1e-4)


def test_sigmas_gradient_is_the_singular_vectors_product() -> None:
    u, v = torch.tensor([0.6, 0.8], dtype=torch.float64), torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    matrix = (5 * torch.outer(u, v)).requires_grad_()
    sigma = largest_singular_value(matrix)
    (gradient,) = torch.autograd.grad(sigma, matrix)
    assert sigma.item() == pytest.approx(5.0)
    assert torch.allclose(gradient, torch.outer(u, v))


def test_the_discriminator_is_a_function_of_its_trained_tensors() -> None:
    torch.manual_seed(0)
    first = UNetDiscriminator(width=4, spectral_norm=True)
    image = torch.randn(1, 3, 16, 24)
    expected = first(image)
    assert expected.shape == (1, 1, 16, 24)
    assert torch.equal(first(image), expected)  # a call leaves nothing behind
    torch.manual_seed(1)
    resumed = UNetDiscriminator(width=4, spectral_norm=True)
    resumed.load_state_dict(dict(first.named_parameters()), strict=True)
    assert torch.equal(resumed(image), expected)


def test_at_the_papers_width_it_has_the_papers_parameters() -> None:
    with torch.device("meta"):
        discriminator = UNetDiscriminator(width=64, spectral_norm=True)
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 4_376_897


# ---- gan


@pytest.mark.parametrize("objective", ["hinge", "softplus"])
def test_both_players_by_hand(objective: str, backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(GANLoss, backbone, objective=objective)
    real, fake = term.discriminator(inputs.target).double(), term.discriminator(inputs.output).double()
    if objective == "hinge":
        player, critic = -fake.mean(), (1 - real).clamp(min=0).mean() + (1 + fake).clamp(min=0).mean()
    else:
        player, critic = (1 + (-fake).exp()).log().mean(), (1 + (-real).exp()).log().mean() + (1 + fake.exp()).log().mean()
    assert term(inputs).loss.item() == pytest.approx(0.5 * player.item(), rel=1e-4)
    assert term.critic_loss(inputs).loss.item() == pytest.approx(critic.item(), rel=1e-4)


def test_the_penalty_of_a_linear_discriminator() -> None:
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    logits = (weight.view(1, 3, 1, 1) * target).sum(dim=1, keepdim=True)
    penalty = r1_penalty(logits, target)
    assert penalty.tolist() == pytest.approx([1 + 4 + 0.25] * 2)
    (gradient,) = torch.autograd.grad(penalty.mean(), weight)
    assert torch.allclose(gradient, 2 * weight)


def test_the_penalty_is_lazy_and_counts_for_the_steps_without(backbone: Backbone, inputs: LossInputs) -> None:
    term, free = make_term(GANLoss, backbone, r1=10.0), make_term(GANLoss, backbone)
    target = inputs.target.clone().requires_grad_()
    penalty = r1_penalty(term.discriminator(target), target).mean().item()
    losses = [
        (term.critic_loss(replace(inputs, step=step)).loss - free.critic_loss(replace(inputs, step=step)).loss).item() for step in range(5)
    ]
    assert losses == pytest.approx([0.5 * 10 * 4 * penalty, 0, 0, 0, 0.5 * 10 * 4 * penalty], rel=1e-3, abs=1e-6)
    assert penalty > 0


def test_following_its_loss_the_discriminator_tells_them_apart(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(GANLoss, backbone, objective="hinge")
    inputs = replace(inputs, target=inputs.output.detach() * 0.1)
    optimizer = torch.optim.Adam(term.critic_parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        term.critic_loss(inputs).loss.backward()
        optimizer.step()
    logs = term.critic_loss(inputs).logs
    assert (logs["real"] > logs["fake"] + 0.5).all()


# ---- dmd_gan


def test_mid_block_features_are_those_of_a_whole_pass(backbone: Backbone) -> None:
    seen: list[Tensor] = []
    z, t, prompt = torch.randn(1, 4, 8, 8), torch.tensor([500]), backbone.encode_prompts(["sharp photo"])
    hook = backbone.unet.mid_block.register_forward_hook(lambda _, inputs, output: seen.append(output))
    whole = backbone.unet(z, t, prompt).sample
    hook.remove()
    assert torch.equal(mid_block_features(backbone.unet, z, t, prompt), seen[0])
    assert torch.equal(backbone.unet(z, t, prompt).sample, whole)  # the hook is gone


def judged(term: DMDGANLoss, inputs: LossInputs, z: Tensor, purpose: str) -> Tensor:
    """Return the head's logits of noised latents, through a whole pass of the score network."""
    seen: list[Tensor] = []
    eps = sample_noise(inputs.seed, purpose, inputs.step, inputs.indices, (4, 8, 8))
    t = sample_integers(inputs.seed, purpose + "/t", inputs.step, inputs.indices, 0, 1000)
    abar = term.schedule.abar(t).view(-1, 1, 1, 1).float()
    hook = term.score.mid_block.register_forward_hook(lambda _, inputs, output: seen.append(output))
    term.score(abar.sqrt() * z + (1 - abar).sqrt() * eps, t, inputs.prompt_embeds)
    hook.remove()
    return term.head(seen[0]).double()


@pytest.mark.parametrize("train_features", [True, False])
def test_recomputing_dmd_gans_score_network_changes_no_gradient(backbone: Backbone, inputs: LossInputs, train_features: bool) -> None:
    def gradients(recomputed: bool) -> list[Tensor]:
        term = make_term(DMDGANLoss, backbone, gradient_checkpointing=recomputed, train_features=train_features)
        wake_lora(term.score)
        inputs.latent.grad = None
        (term(inputs).loss + term.critic_loss(inputs).loss).backward()
        assert inputs.latent.grad is not None
        assert term.score.is_gradient_checkpointing == recomputed  # type: ignore[union-attr, operator]
        return [inputs.latent.grad.clone(), *(parameter.grad for parameter in term.critic_parameters())]  # type: ignore[list-item]

    assert all(map(torch.equal, gradients(True), gradients(False)))


def test_dmd_gan_by_hand(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(DMDGANLoss, backbone, matching_weight=2.0)
    with torch.no_grad():
        z_H = backbone.vae.encode(inputs.target).latent_dist.mean * backbone.scaling_factor
        fake = judged(term, inputs, inputs.latent, "dmd_gan/gan")
        matching = term.match(inputs.latent, inputs).loss.item()
        player = (1 + (-fake).exp()).log().mean().item()
        assert term(inputs).loss.item() == pytest.approx(2 * matching + 0.5 * player, rel=1e-5)
        real, fake = (judged(term, inputs, z, "dmd_gan/critic") for z in (z_H, inputs.latent))
        critic = (1 + (-real).exp()).log().mean() + (1 + fake.exp()).log().mean()
        denoising = term.denoising(inputs.latent, inputs).loss.item()
        assert term.critic_loss(inputs).loss.item() == pytest.approx(denoising + 0.25 * critic.item(), rel=1e-5)


def test_its_matching_is_vsd(backbone: Backbone, inputs: LossInputs) -> None:
    settings = {"guidance": 1.0}  # an untrained score network would cancel the prior; both are woken alike
    vsd, dmd = make_term(VSDLoss, backbone, **settings), make_term(DMDGANLoss, backbone, gan_weight=0.0, **settings)
    at = vsd.noised(inputs.latent, inputs)
    assert all(torch.equal(one, other) for one, other in zip(vsd.estimates(at, inputs), dmd.estimates(at, inputs), strict=True))


def test_the_generators_gradient_comes_through_the_features(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(DMDGANLoss, backbone, matching_weight=0.0)
    fake = judged(term, inputs, inputs.latent, "dmd_gan/gan")
    (expected,) = torch.autograd.grad(0.5 * torch.nn.functional.softplus(-fake).mean(), inputs.latent)
    (gradient,) = torch.autograd.grad(term(inputs).loss, inputs.latent)
    assert torch.allclose(gradient, expected, rtol=1e-3, atol=1e-8)
    assert expected.abs().max() > 1e-6


def test_frozen_features_train_the_head_alone(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(DMDGANLoss, backbone, score_weight=0.0, train_features=False)
    term.critic_loss(inputs).loss.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in term.head.parameters())
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in term.score.parameters() if parameter.requires_grad)
