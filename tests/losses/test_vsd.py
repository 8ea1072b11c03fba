"""Variational score distillation: its gradient worked out by hand, and who learns from which loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_parts import make_generator, make_inputs, make_vsd, wake_lora
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossInputs
from osediff_exp.losses.distillation import pull
from osediff_exp.losses.score_network import vsd_gradient
from osediff_exp.losses.vsd import VSDLoss
from osediff_exp.models.backbone import Backbone
from osediff_exp.randomness import sample_integers, sample_noise


@pytest.fixture
def vsd(backbone: Backbone) -> VSDLoss:
    term = make_vsd(backbone)
    assert term.score is not None
    wake_lora(term.score)
    return term


@pytest.fixture
def inputs(backbone: Backbone) -> LossInputs:
    return make_inputs(backbone, indices=[3, 5])


# ---- pure functions


def test_gradient_and_w_by_hand() -> None:
    z = torch.tensor([[[[1.0, 2.0]]], [[[0.0, 0.0]]]], dtype=torch.float64)
    prior = torch.tensor([[[[0.0, 4.0]]], [[[0.5, -0.5]]]], dtype=torch.float64)
    score = torch.tensor([[[[3.0, 1.0]]], [[[1.0, 1.0]]]], dtype=torch.float64)
    gradient, w = vsd_gradient(z, prior, score, epsilon=1e-6)
    assert w.tolist() == pytest.approx([1 / 1.5, 1 / 0.5])
    assert gradient.flatten().tolist() == pytest.approx([3 / 1.5, -3 / 1.5, 0.5 / 0.5, 1.5 / 0.5])


def test_a_latent_equal_to_the_priors_estimate_is_safe() -> None:
    z = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    gradient, w = vsd_gradient(z, z, z + 1, epsilon=1e-6)
    assert w.tolist() == pytest.approx([1e6, 1e6])
    assert torch.isfinite(gradient).all()
    assert not vsd_gradient(z, z, z, epsilon=1e-6)[0].any()


def test_the_losss_derivative_is_2_gradient_over_numel() -> None:
    generator = torch.Generator().manual_seed(0)
    z, gradient = (torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    z.requires_grad_()
    (derivative,) = torch.autograd.grad(pull(z, gradient), z)
    assert torch.allclose(derivative, 2 * gradient / z.numel(), atol=1e-15)
    assert pull(z, gradient).item() == pytest.approx(gradient.square().mean().item())


# ---- the term


def by_hand(term: VSDLoss, inputs: LossInputs) -> tuple[Tensor, Tensor]:
    """Return z_hat's derivative and w from the networks' outputs, one sample and one network call at a time, in float64."""
    derivatives, weights = [], []
    for row, index in enumerate(inputs.indices):
        z = inputs.latent[row : row + 1].detach()
        eps = sample_noise(inputs.seed, "vsd", inputs.step, [index], tuple(z.shape[1:]))
        t = sample_integers(inputs.seed, "vsd/t", inputs.step, [index], term.t_min, term.t_max)
        abar = term.schedule.abar(t).item()
        z_t = abar**0.5 * z + (1 - abar) ** 0.5 * eps
        positive, negative = inputs.prompt_embeds[row : row + 1], inputs.negative_embeds[row : row + 1]
        with torch.no_grad():
            outputs = [
                net(z_t, t, c).sample.double() for net, c in ((term.prior, positive), (term.prior, negative), (term.score, positive))
            ]
        guided = outputs[1] + term.guidance * (outputs[0] - outputs[1])
        x0_prior, x0_score = ((z_t.double() - (1 - abar) ** 0.5 * output) / abar**0.5 for output in (guided, outputs[2]))
        weights.append(1 / (z - x0_prior).abs().mean())
        derivatives.append(2 * weights[-1] * (x0_score - x0_prior) / inputs.latent.numel())
    return torch.cat(derivatives), torch.stack(weights)


def test_the_term_agrees_with_the_paper_by_hand(vsd: VSDLoss, inputs: LossInputs) -> None:
    output = vsd(inputs)
    derivative, w = by_hand(vsd, inputs)
    (gradient,) = torch.autograd.grad(output.loss, inputs.latent)
    assert torch.allclose(output.logs["w"].double(), w, rtol=1e-4)
    assert torch.allclose(gradient.double(), derivative, rtol=1e-3, atol=1e-6)
    assert derivative.abs().max() > 1e-4


def test_with_prompt_and_negative_prompt_alike_guidance_changes_nothing(backbone: Backbone, inputs: LossInputs) -> None:
    strong, none = make_vsd(backbone, guidance=7.5), make_vsd(backbone, guidance=1.0)
    alike = replace(inputs, negative_embeds=inputs.prompt_embeds)
    assert strong(alike).loss.item() == pytest.approx(none(alike).loss.item(), rel=1e-3)
    assert strong(inputs).logs["gap"].sum() > 2 * none(inputs).logs["gap"].sum()


def test_an_untrained_score_network_and_an_unguided_prior_cancel(backbone: Backbone, inputs: LossInputs) -> None:
    output = make_vsd(backbone, guidance=1.0)(inputs)
    assert output.logs["gap"].abs().max() < 1e-5
    assert output.loss.item() < 1e-9


def test_the_generators_loss_reaches_the_latent_and_no_network(vsd: VSDLoss, inputs: LossInputs) -> None:
    vsd(inputs).loss.backward()
    assert inputs.latent.grad is not None
    assert inputs.latent.grad.abs().sum() > 0
    assert inputs.output.grad is None
    assert all(parameter.grad is None for parameter in vsd.parameters())


def test_the_score_networks_loss_reaches_its_lora_and_not_the_generator(vsd: VSDLoss, inputs: LossInputs, backbone: Backbone) -> None:
    vsd.critic_loss(inputs).loss.backward()
    assert inputs.latent.grad is None
    reached = {id(parameter) for parameter in vsd.parameters() if parameter.grad is not None}
    assert reached == {id(parameter) for parameter in vsd.critic_parameters()}
    assert all(parameter.grad.abs().max() > 0 for parameter in vsd.critic_parameters())
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_recomputing_the_score_network_changes_no_bit(backbone: Backbone, inputs: LossInputs) -> None:
    def results(recomputed: bool) -> list[Tensor]:
        term = make_vsd(backbone, gradient_checkpointing=recomputed)
        wake_lora(term.score)
        assert term.score.is_gradient_checkpointing == recomputed  # type: ignore[union-attr, operator]
        loss = term.critic_loss(inputs).loss
        loss.backward()
        return [loss.detach(), *(parameter.grad for parameter in term.critic_parameters())]  # type: ignore[list-item]

    assert all(map(torch.equal, results(True), results(False)))


def test_the_score_networks_loss_is_its_denoising_error(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_vsd(backbone, score_weight=3.0)
    z, step, indices = inputs.latent.detach(), inputs.step, inputs.indices
    eps = sample_noise(inputs.seed, "score", step, indices, tuple(z.shape[1:]))
    t = sample_integers(inputs.seed, "score/t", step, indices, 0, 1000)
    abar = term.schedule.abar(t).view(-1, 1, 1, 1).float()
    with torch.no_grad():
        output = backbone.unet(abar.sqrt() * z + (1 - abar).sqrt() * eps, t, inputs.prompt_embeds).sample
    assert term.critic_loss(inputs).loss.item() == pytest.approx(3 * (output - eps).square().mean().item(), rel=1e-5)


def test_following_its_loss_the_score_network_denoises_better(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_vsd(backbone)
    optimizer = torch.optim.AdamW(term.critic_parameters(), lr=1e-2)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = term.critic_loss(inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)


def test_noise_belongs_to_the_sample_whatever_its_place_in_the_batch(vsd: VSDLoss, backbone: Backbone) -> None:
    forward, backward = (make_inputs(backbone, indices=indices) for indices in ([3, 5, 8], [8, 5, 3]))
    for function in (vsd.forward, vsd.critic_loss):
        one, other = function(forward), function(backward)
        assert one.loss.item() == pytest.approx(other.loss.item(), rel=1e-5)
        for key, values in one.logs.items():
            assert torch.allclose(values, other.logs[key].flip(0), rtol=1e-3, equal_nan=True)
    alone = vsd(make_inputs(backbone, indices=[5]))
    assert alone.logs["w"].item() == pytest.approx(vsd(forward).logs["w"][1].item(), rel=1e-4)


def test_every_step_and_seed_draws_anew(vsd: VSDLoss, inputs: LossInputs) -> None:
    gaps = [vsd(replace(inputs, **change)).logs["gap"] for change in ({}, {}, {"step": 1}, {"seed": 12})]
    assert torch.equal(gaps[0], gaps[1])
    assert not torch.allclose(gaps[0], gaps[2])
    assert not torch.allclose(gaps[0], gaps[3])


def test_the_score_loss_is_logged_once_per_bucket_of_timesteps(backbone: Backbone) -> None:
    term, inputs = make_vsd(backbone), make_inputs(backbone, indices=list(range(12)))
    output = term.critic_loss(inputs)
    t = sample_integers(inputs.seed, "score/t", 0, inputs.indices, 0, 1000)
    buckets = torch.stack([output.logs[f"score_loss_t{low:03d}_{low + 250:03d}"] for low in (0, 250, 500, 750)])
    assert torch.equal(buckets.isnan().logical_not().int().argmax(0), t // 250)
    assert (buckets.isnan().logical_not().sum(0) == 1).all()
    assert buckets.nansum(0).mean().item() == pytest.approx(output.loss.item(), rel=1e-5)


@pytest.mark.parametrize("change", [{"t_min": 980}, {"score_t_min": -1}, {"t_max": 1001}, {"score_t_max": 2000}])
def test_timesteps_the_prior_lacks_are_the_users_mistake(backbone: Backbone, change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="loss.terms.vsd"):
        make_vsd(backbone, **change)


def test_the_score_network_starts_as_the_prior_and_leaves_the_generator_alone(backbone: Backbone, inputs: LossInputs) -> None:
    term, generator = make_vsd(backbone), make_generator(backbone)
    own = {id(parameter) for parameter in term.critic_parameters()}
    assert not own & {id(parameter) for parameter in generator.parameters()}
    t = torch.tensor([7, 900])
    with torch.no_grad():
        z, c = inputs.latent.detach(), inputs.prompt_embeds
        assert term.score is not None
        assert torch.equal(term.score(z, t, c).sample, backbone.unet(z, t, c).sample)
