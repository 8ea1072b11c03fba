"""SeeSR's network: the frozen prior at first, then what image tokens and pixels say; sizes as published."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from network_parts import Inputs, make_inputs, millions, published, reached, trained, wake
from torch import Tensor

from osediff_exp.methods.seesr.network import SeeSRNetwork
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.empty_backbone import empty_backbone

WIDTH = 6


def build(backbone: Backbone, **settings: bool) -> SeeSRNetwork:
    torch.manual_seed(1)
    return SeeSRNetwork(backbone=backbone, token_width=WIDTH, **settings)


def tokens(offset: float = 0.0) -> Tensor:
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(5)) + offset


def predict(network: SeeSRNetwork, inputs: Inputs, seen: Tensor) -> Tensor:
    return network(inputs.z_t, inputs.t, inputs.text, network.embed(inputs.lq), seen)


@torch.no_grad()
def test_untrained_it_is_the_frozen_prior(backbone: Backbone) -> None:
    inputs = make_inputs(backbone)
    frozen = backbone.unet(inputs.z_t, inputs.t, inputs.text).sample
    assert torch.equal(predict(build(backbone), inputs, tokens()), frozen)


@torch.no_grad()
def test_in_half_precision_too_while_what_trains_stays_in_single(backbone_folder: Path) -> None:
    half = load_backbone(sources=[str(backbone_folder)], dtype="bfloat16")
    inputs, network = make_inputs(half), build(half)
    z_t = inputs.z_t.bfloat16()
    frozen = half.unet(z_t, inputs.t, inputs.text).sample
    assert torch.equal(network(z_t, inputs.t, inputs.text, network.embed(inputs.lq), tokens()), frozen)
    assert {parameter.dtype for parameter in network.parameters() if parameter.requires_grad} == {torch.float32}


@torch.no_grad()
def test_pixels_words_and_tokens_all_tell(backbone: Backbone) -> None:
    network, inputs = build(backbone), make_inputs(backbone)
    wake(network)
    first = predict(network, inputs, tokens())
    other = Inputs(z_t=inputs.z_t, t=inputs.t, text=inputs.text, lq=inputs.lq.flip(-1))
    mute = Inputs(z_t=inputs.z_t, t=inputs.t, text=inputs.text.flip(0), lq=inputs.lq)
    for second in (predict(network, inputs, tokens(1.0)), predict(network, other, tokens()), predict(network, mute, tokens())):
        assert not torch.allclose(first, second, atol=1e-4)


def test_gradients_reach_the_control_net_and_the_image_attentions_alone(backbone: Backbone) -> None:
    network = build(backbone)
    assert {name for name in trained(network) if name.startswith("unet.")} == {
        name for name, _ in network.named_parameters() if name.startswith("unet.") and ".attention." in name
    }
    assert {name for name in trained(network) if not name.startswith("unet.")} == {
        name for name, _ in network.named_parameters() if not name.startswith("unet.")
    }
    wake(network)
    predict(network, make_inputs(backbone), tokens()).square().mean().backward()
    assert reached(network) == trained(network)
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_at_first_only_what_is_zero_learns(backbone: Backbone) -> None:
    network = build(backbone)
    predict(network, make_inputs(backbone), tokens()).square().mean().backward()
    assert reached(network) == {
        name
        for name in trained(network)
        if (name.startswith("unet.") and ".attention.proj_out." in name) or name.startswith("control_net.controlnet_")
    }


def test_recomputed_activations_give_the_same_gradients(backbone: Backbone) -> None:
    gradients = []
    for recompute in (False, True):
        network = build(backbone, gradient_checkpointing=recompute).train()
        wake(network)
        predict(network, make_inputs(backbone), tokens()).square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_frozen_weights_exist_once(backbone: Backbone) -> None:
    own = {id(parameter) for parameter in backbone.unet.parameters()}
    assert {id(parameter) for parameter in build(backbone).parameters() if not parameter.requires_grad} == own


def test_at_the_size_of_stable_diffusion_it_trains_what_is_published() -> None:
    sd21 = empty_backbone("sd21")
    network = SeeSRNetwork(backbone=sd21)
    assert millions(network.control_net) + millions(network.embedding) == pytest.approx(489.03, abs=0.01)  # 364.23 without image attentions
    assert millions(network) == pytest.approx(749.881, abs=1e-3)
    assert round(millions(network), 1) == published("SeeSR")["trainable_m"]
