"""The distillation terms' gradients, worked out from the networks' noise estimates as the papers write them, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from tiny_parts import make_inputs, make_term
from torch import Tensor, nn

from osediff_exp.losses.base import LossInputs, LossTerm
from osediff_exp.losses.csd import CSDLoss
from osediff_exp.losses.sds import SDSLoss
from osediff_exp.losses.tsd import TSDLoss
from osediff_exp.losses.vsd_image import VSDImageLoss
from osediff_exp.models.backbone import Backbone
from osediff_exp.randomness import sample_integers, sample_noise


@pytest.fixture
def inputs(backbone: Backbone) -> LossInputs:
    return make_inputs(backbone, indices=[3, 5])


@dataclass
class Row:
    """One sample: its noise, alpha and sigma, and the noise estimates of any network at any latent."""

    inputs: LossInputs
    number: int
    eps: Tensor
    t: Tensor
    alpha: float
    sigma: float

    def estimate(self, network: nn.Module, z: Tensor, prompt: Tensor) -> Tensor:
        z_t = self.alpha * z + self.sigma * self.eps
        with torch.no_grad():
            return network(z_t.float(), self.t, prompt[self.number : self.number + 1]).sample.double()

    def guided(self, network: nn.Module, z: Tensor, guidance: float) -> Tensor:
        negative = self.estimate(network, z, self.inputs.negative_embeds)
        return negative + guidance * (self.estimate(network, z, self.inputs.prompt_embeds) - negative)


def rows(term: LossTerm, inputs: LossInputs, shape: tuple[int, ...]) -> list[Row]:
    made = []
    for number, index in enumerate(inputs.indices):
        eps = sample_noise(inputs.seed, term.purpose, inputs.step, [index], shape).double()
        t = sample_integers(inputs.seed, term.purpose + "/t", inputs.step, [index], term.t_min, term.t_max)
        abar = term.schedule.abar(t).item()
        made.append(Row(inputs, number, eps, t, abar**0.5, (1 - abar) ** 0.5))
    return made


def agrees(term: LossTerm, inputs: LossInputs, directions: list[Tensor]) -> bool:
    """Tell whether the loss's derivative by z_hat is 2 direction / numel, and its value the mean square of the directions."""
    loss = term(inputs).loss
    (gradient,) = torch.autograd.grad(loss, inputs.latent)
    expected = torch.cat(directions)
    assert expected.abs().max() > 1e-3
    assert loss.item() == pytest.approx(expected.square().mean().item(), rel=1e-3)
    return torch.allclose(gradient.double(), 2 * expected / inputs.latent.numel(), rtol=1e-3, atol=1e-6)


def test_csd_is_the_classifiers_score(backbone: Backbone, inputs: LossInputs) -> None:
    term, directions = make_term(CSDLoss, backbone), []
    for row in rows(term, inputs, (4, 8, 8)):
        z = inputs.latent[row.number : row.number + 1].detach().double()
        conditional, null = (row.estimate(term.prior, z, prompt) for prompt in (inputs.prompt_embeds, inputs.negative_embeds))
        classifier = row.sigma / row.alpha * term.guidance * (conditional - null)
        x0 = (row.alpha * z + row.sigma * row.eps - row.sigma * row.guided(term.prior, z, term.guidance)) / row.alpha
        directions.append(classifier / (z - x0).abs().mean())
    assert agrees(term, inputs, directions)


def test_csd_vanishes_where_the_prompts_agree(backbone: Backbone, inputs: LossInputs) -> None:
    alike = replace(inputs, negative_embeds=inputs.prompt_embeds)
    assert make_term(CSDLoss, backbone)(alike).loss.item() < 1e-8


@pytest.mark.parametrize("weighting", ["normalized", "sigma2"])
def test_sds_is_dreamfusions_equation_3(weighting: str, backbone: Backbone, inputs: LossInputs) -> None:
    term, directions = make_term(SDSLoss, backbone, weighting=weighting), []
    for row in rows(term, inputs, (4, 8, 8)):
        z = inputs.latent[row.number : row.number + 1].detach().double()
        residual = row.guided(term.prior, z, term.guidance) - row.eps
        weight = row.sigma**2 if weighting == "sigma2" else 1 / residual.abs().mean()  # the normalized one is free of sigma / alpha
        directions.append(weight * residual)
    assert agrees(term, inputs, directions)


def encoded(backbone: Backbone, image: Tensor) -> Tensor:
    """z = scaling_factor * mean of E's posterior."""
    moments = backbone.vae.quant_conv(backbone.vae.encoder(image))
    return moments.chunk(2, dim=1)[0] * backbone.vae.config.scaling_factor


@pytest.mark.parametrize(("target_weight", "vsd_weight"), [(1.0, 0.0), (0.3, 0.7)])
def test_tsd_is_equation_5(target_weight: float, vsd_weight: float, backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(TSDLoss, backbone, target_weight=target_weight, vsd_weight=vsd_weight)
    with torch.no_grad():
        z_H = encoded(backbone, inputs.target).double()
    directions = []
    for row in rows(term, inputs, (4, 8, 8)):
        z, truth = inputs.latent[row.number : row.number + 1].detach().double(), z_H[row.number : row.number + 1]
        here, there = (row.guided(term.prior, point, term.guidance) for point in (z, truth))
        score = row.estimate(term.score, z, inputs.prompt_embeds)
        residual = target_weight * (here - there) + vsd_weight * (here - score)
        directions.append(residual / (here - row.eps).abs().mean())  # sigma / alpha cancels: z - x0 = sigma / alpha (e - eps)
    assert agrees(term, inputs, directions)


def test_target_score_matching_is_at_rest_at_the_truth(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(TSDLoss, backbone, target_weight=1.0, vsd_weight=0.0)
    with torch.no_grad():
        z_H = encoded(backbone, inputs.target)
    at_truth = replace(inputs, latent=z_H.clone().requires_grad_())
    assert term(at_truth).loss.item() < 1e-9
    assert term(inputs).loss.item() > 1e-3


def test_vsd_on_pictures_is_vsd_on_their_latents(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(VSDImageLoss, backbone)
    output = inputs.output.detach().clone().requires_grad_()
    z = encoded(backbone, output)
    derivatives = []
    for row in rows(term, inputs, (4, 8, 8)):
        here = z[row.number : row.number + 1].detach().double()
        prior, score = row.guided(term.prior, here, term.guidance), row.estimate(term.score, here, inputs.prompt_embeds)
        derivatives.append(2 * (prior - score) / (prior - row.eps).abs().mean() / z.numel())
    (expected,) = torch.autograd.grad(z, output, torch.cat(derivatives).float())  # the chain rule through E
    (gradient,) = torch.autograd.grad(term(inputs).loss, inputs.output)
    assert expected.abs().max() > 1e-5
    assert torch.allclose(gradient, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))


def test_the_score_network_of_pictures_learns_their_latents(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(VSDImageLoss, backbone)
    with torch.no_grad():
        z = encoded(backbone, inputs.output)
        eps = sample_noise(inputs.seed, "vsd_image/score", inputs.step, inputs.indices, (4, 8, 8))
        t = sample_integers(inputs.seed, "vsd_image/score/t", inputs.step, inputs.indices, 0, 1000)
        abar = term.schedule.abar(t).view(-1, 1, 1, 1).float()
        output = term.score(abar.sqrt() * z + (1 - abar).sqrt() * eps, t, inputs.prompt_embeds).sample
    expected = (output - eps).square().mean().item()
    assert term.critic_loss(inputs).loss.item() == pytest.approx(expected, rel=1e-5)
    term(inputs)  # now the latents are those that the generator's side encoded
    assert term.critic_loss(inputs).loss.item() == pytest.approx(expected, rel=1e-5)


def test_latents_encoded_for_other_inputs_are_not_taken(backbone: Backbone, inputs: LossInputs) -> None:
    term = make_term(VSDImageLoss, backbone)
    other = replace(inputs, output=inputs.output.detach().flip(0))
    expected = term.critic_loss(other).loss.item()
    term(inputs)
    assert term.critic_loss(other).loss.item() == expected
