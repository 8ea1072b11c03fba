"""What every distillation and adversarial term promises: whom its gradients reach, whose noise is whose, what its file says."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from tiny_parts import TERM_SETTINGS, make_inputs, make_term
from torch import Tensor

from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.losses.base import CriticTerm, LossInputs, LossTerm
from osediff_exp.losses.csd import CSDLoss
from osediff_exp.losses.dmd_gan import DMDGANLoss
from osediff_exp.losses.gan import GANLoss
from osediff_exp.losses.sds import SDSLoss
from osediff_exp.losses.tsd import TSDLoss
from osediff_exp.losses.vsd_image import VSDImageLoss
from osediff_exp.models.backbone import Backbone

CONF = Path(__file__).parents[2] / "conf" / "loss" / "terms"
KINDS = list(TERM_SETTINGS)
CRITICS = [kind for kind in KINDS if issubclass(kind, CriticTerm)]
ON_PICTURES = (VSDImageLoss, GANLoss)


def grads(term: LossTerm, inputs: LossInputs) -> dict[str, Tensor | None]:
    ends = {"latent": inputs.latent.grad, "output": inputs.output.grad}
    return ends | {name: parameter.grad for name, parameter in term.named_parameters()}


def reached(term: LossTerm, inputs: LossInputs) -> set[str]:
    return {name for name, grad in grads(term, inputs).items() if grad is not None and grad.abs().max() > 0}


def names(term: CriticTerm) -> set[str]:
    own = {id(parameter) for parameter in term.critic_parameters()}
    return {name for name, parameter in term.named_parameters() if id(parameter) in own}


@pytest.mark.parametrize("kind", KINDS)
def test_the_generators_loss_reaches_the_generator_only(kind: type[LossTerm], backbone: Backbone) -> None:
    term, inputs = make_term(kind, backbone), make_inputs(backbone, indices=[3, 5])
    before = {name: buffer.clone() for name, buffer in term.named_buffers()}
    term(inputs).loss.backward()
    assert reached(term, inputs) == {"output" if kind in ON_PICTURES else "latent"}
    assert all(grad is None for name, grad in grads(term, inputs).items() if name not in ("latent", "output"))
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert all(torch.equal(buffer, before[name]) for name, buffer in term.named_buffers())


@pytest.mark.parametrize("kind", CRITICS)
def test_the_critics_loss_reaches_its_own_networks_only(kind: type[CriticTerm], backbone: Backbone) -> None:
    term, inputs = make_term(kind, backbone), make_inputs(backbone, indices=[3, 5])
    before = {name: buffer.clone() for name, buffer in term.named_buffers()}
    term.critic_loss(inputs).loss.backward()
    assert reached(term, inputs) == names(term)
    assert inputs.latent.grad is None
    assert inputs.output.grad is None
    assert inputs.target.grad is None
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert {name for name, parameter in term.named_parameters() if parameter.requires_grad} == names(term)
    assert all(torch.equal(buffer, before[name]) for name, buffer in term.named_buffers())


@pytest.mark.parametrize("kind", CRITICS)
def test_one_backward_gives_what_two_give(kind: type[CriticTerm], backbone: Backbone) -> None:
    term = make_term(kind, backbone)
    together, apart = make_inputs(backbone, indices=[3, 5]), make_inputs(backbone, indices=[3, 5])
    (term(together).loss + term.critic_loss(together).loss).backward()
    expected = {name: grad.clone() for name, grad in grads(term, together).items() if grad is not None}
    term.zero_grad()
    term(apart).loss.backward()
    term.critic_loss(apart).loss.backward()
    found = {name: grad for name, grad in grads(term, apart).items() if grad is not None}
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-8) for name in found)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_its_samples(kind: type[LossTerm], backbone: Backbone) -> None:
    term = make_term(kind, backbone)
    functions = [term.forward] + ([term.critic_loss] if isinstance(term, CriticTerm) else [])
    for function in functions:
        both = function(make_inputs(backbone, indices=[8, 3]))
        alone = [function(make_inputs(backbone, indices=[index])) for index in (8, 3)]
        assert both.loss.item() == pytest.approx(sum(output.loss.item() for output in alone) / 2, rel=1e-4)
        for key, values in both.logs.items():
            single = [output.logs[key].reshape(-1) for output in alone]
            expected = torch.cat(single) if values.ndim else torch.stack(single).mean()
            assert torch.allclose(values, expected, rtol=1e-3, atol=1e-6, equal_nan=True), key


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not GANLoss])  # the discriminator draws nothing
def test_every_step_and_seed_draws_anew(kind: type[LossTerm], backbone: Backbone) -> None:
    term = make_term(kind, backbone)
    first, again, later = (term(make_inputs(backbone, indices=[3], step=step)).loss.item() for step in (0, 0, 1))
    assert first == again
    assert first != later


@pytest.mark.parametrize("kind", KINDS)
def test_a_bfloat16_backbone_is_enough(kind: type[LossTerm], backbone: Backbone) -> None:
    half = copy.deepcopy(backbone).to(torch.bfloat16)
    term, inputs = make_term(kind, half), make_inputs(half, indices=[3, 5])
    reference = make_term(kind, backbone)(make_inputs(backbone, indices=[3, 5])).loss.item()
    loss = term(inputs).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(reference, rel=0.15)
    if isinstance(term, CriticTerm):
        loss = loss + term.critic_loss(inputs).loss
        assert {parameter.dtype for parameter in term.critic_parameters()} == {torch.float32}
    loss.backward()
    assert all(grad.isfinite().all() for grad in grads(term, inputs).values() if grad is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_weights_are_shared(kind: type[LossTerm], backbone: Backbone) -> None:
    base = {parameter.data_ptr() for parameter in backbone.parameters()}
    term = make_term(kind, backbone)
    assert all(parameter.data_ptr() in base for parameter in term.parameters() if not parameter.requires_grad)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (SDSLoss, {"weighting": "sigma"}, "loss.terms.sds.weighting=sigma .*sigma2"),
        (CSDLoss, {"t_min": 980}, "loss.terms.csd.t_min=980"),
        (CSDLoss, {"t_max": 1001}, "loss.terms.csd.t_max=1001 must not exceed the backbone's 1000"),
        (TSDLoss, {"score_t_max": 2000}, "loss.terms.tsd.t_max=980 and score_t_max=2000"),
        (DMDGANLoss, {"gan_t_min": 1000}, "loss.terms.dmd_gan.gan_t_min=1000"),
        (DMDGANLoss, {"gan_t_max": 1001}, "loss.terms.dmd_gan.gan_t_max=1001"),
        (DMDGANLoss, {"head_width": 12}, "loss.terms.dmd_gan.head_width=12"),
        (GANLoss, {"objective": "hinges"}, "Did you mean 'hinge'"),
        (GANLoss, {"r1_every": 0}, "loss.terms.gan.r1_every=0"),
    ],
)
def test_the_users_mistakes_are_named(kind: type[LossTerm], settings: dict[str, Any], message: str, backbone: Backbone) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_term(kind, backbone, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vsd", "vsd_image", "csd", "sds", "tsd", "gan", "dmd_gan", "edge_st_lpips"])
def test_a_terms_file_builds_it_with_the_lambdas_weight(name: str) -> None:
    register_resolvers()
    recipe = {"lambda1_scale": 0.5, "lambda2_scale": 0.25, "score_learning_rate": 1e-3, "discriminator_width": 4, "dmd_gan_weight": 0.1}
    recipe |= {"guidance": 3.0, "distill_t_min": 30, "distill_t_max": 600, "lora_rank": 2, "lora_policy": "rank"}
    config = OmegaConf.merge(
        {"lambda1": 3.0, "lambda2": 2.0, "backbone": {"recipe": recipe}}, {"terms": OmegaConf.load(CONF / f"{name}.yaml")}
    )
    term = instantiate(config.terms[name])
    assert term.weight == (1.5 if name == "edge_st_lpips" else 0.5)
    if isinstance(term, CriticTerm):
        assert term.optimizer([torch.nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] == 1e-3
