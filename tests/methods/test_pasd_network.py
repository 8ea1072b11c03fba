"""PASD's network: the frozen prior at first, then what the control features say, twice; sizes beside the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from network_parts import Inputs, make_inputs, millions, published, reached, trained, wake
from torch import Tensor

from osediff_exp.methods.added_attention import AddedAttention
from osediff_exp.methods.pasd.degradation_removal import removal_loss
from osediff_exp.methods.pasd.network import PASDNetwork, feature_widths
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.empty_backbone import empty_backbone


def build(backbone: Backbone, **settings: bool) -> PASDNetwork:
    torch.manual_seed(1)
    return PASDNetwork(backbone=backbone, **settings)


def predict(network: PASDNetwork, inputs: Inputs) -> Tensor:
    return network(inputs.z_t, inputs.t, inputs.text, network.embed(inputs.lq).embedding)


def loss(network: PASDNetwork, inputs: Inputs) -> Tensor:
    removed = network.embed(inputs.lq)
    prediction = network(inputs.z_t, inputs.t, inputs.text, removed.embedding)
    return prediction.square().mean() + removal_loss(removed.rgbs, inputs.lq.flip(-1))


@torch.no_grad()
def test_untrained_it_is_the_frozen_prior(backbone: Backbone) -> None:
    inputs = make_inputs(backbone)
    frozen = backbone.unet(inputs.z_t, inputs.t, inputs.text).sample
    assert torch.equal(predict(build(backbone), inputs), frozen)


@torch.no_grad()
def test_in_half_precision_too_while_what_trains_stays_in_single(backbone_folder: Path) -> None:
    half = load_backbone(sources=[str(backbone_folder)], dtype="bfloat16")
    inputs, network = make_inputs(half), build(half)
    z_t = inputs.z_t.bfloat16()
    frozen = half.unet(z_t, inputs.t, inputs.text).sample
    assert torch.equal(network(z_t, inputs.t, inputs.text, network.embed(inputs.lq).embedding), frozen)
    assert {parameter.dtype for parameter in network.parameters() if parameter.requires_grad} == {torch.float32}


@torch.no_grad()
def test_each_layer_of_the_up_blocks_looks_at_its_own_skips_feature(backbone: Backbone) -> None:
    network, inputs = build(backbone), make_inputs(backbone)
    wake(network)
    seen: list[Tensor] = []
    for added in network.pixel_attentions:
        added.register_forward_pre_hook(lambda module, _: seen.append(module.keys))
    predict(network, inputs)
    skips = network.control_net(inputs.z_t, inputs.t, inputs.text, network.embed(inputs.lq).embedding, return_dict=False)[0]
    assert len(seen) == len(skips) == sum(len(block.resnets) for block in backbone.unet.up_blocks)
    for keys, skip in zip(seen, reversed(skips), strict=True):
        assert torch.equal(keys, skip.flatten(2).transpose(1, 2))


@torch.no_grad()
def test_features_act_through_skips_and_through_attentions(backbone: Backbone) -> None:
    network, inputs = build(backbone), make_inputs(backbone)
    silent = predict(network, inputs)
    wake(network.control_net)
    through_skips = predict(network, inputs)
    assert not torch.allclose(through_skips, silent, atol=1e-4)
    wake(network.unet)
    assert not torch.allclose(predict(network, inputs), through_skips, atol=1e-4)


def test_gradients_reach_the_control_net_and_the_pixel_attentions_alone(backbone: Backbone) -> None:
    network = build(backbone)
    assert {name for name in trained(network) if name.startswith("unet.")} == {
        name for name, _ in network.named_parameters() if name.startswith("unet.up_blocks.") and ".attention." in name
    }
    wake(network)
    loss(network, make_inputs(backbone)).backward()
    assert reached(network) == trained(network)
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_recomputed_activations_give_the_same_gradients(backbone: Backbone) -> None:
    gradients = []
    for recompute in (False, True):
        network = build(backbone, gradient_checkpointing=recompute).train()
        wake(network)
        loss(network, make_inputs(backbone)).backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.allclose(gradients[0][name], gradients[1][name], atol=1e-6) for name in gradients[0])


def test_frozen_weights_exist_once_and_other_views_do_not_know(backbone: Backbone) -> None:
    network, own = build(backbone), {id(parameter) for parameter in backbone.unet.parameters()}
    assert {id(parameter) for parameter in network.parameters() if not parameter.requires_grad} == own
    assert not any(isinstance(module, AddedAttention) for module in backbone.unet.modules())


def test_the_sizes_at_stable_diffusion() -> None:
    """The published 625.0 M of PASD are 12.5 M, 2 %, more than its released modules have; the published total, 1900 M, is ours."""
    sd21 = empty_backbone("sd21")
    network = PASDNetwork(backbone=sd21)
    control = millions(network.control_net) + millions(network.embedding)
    assert control == pytest.approx(364.239, abs=1e-3)
    assert millions(network) - control == pytest.approx(248.235, abs=1e-3)
    assert millions(network) == pytest.approx(published("PASD")["trainable_m"], rel=0.0201)
    total = millions(network) + sum(parameter.numel() for parameter in sd21.parameters()) / 1e6
    assert total == pytest.approx(published("PASD")["params_m"], rel=0.002)
    assert feature_widths(network.control_net) == [320] * 4 + [640] * 3 + [1280] * 5
    assert [added.attention.config.in_channels for added in network.pixel_attentions] == [1280] * 6 + [640] * 3 + [320] * 3
