"""Which layers of Stable Diffusion 2.1 get LoRA, how many parameters that makes, and that views share the rest."""

from __future__ import annotations

import copy
from typing import cast

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from tiny_parts import build_vsd, make_vsd
from torch import nn

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.empty_backbone import empty_backbone
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.models.lora import AlphaPolicy, add_lora, lora_scale, unet_targets, vae_targets
from osediff_exp.models.views import share_frozen


@pytest.fixture(scope="module")
def sd21() -> Backbone:
    """Stable Diffusion 2.1 base without values, on the meta device."""
    return empty_backbone("sd21")


def count(parameters: list[nn.Parameter]) -> int:
    assert len({id(parameter) for parameter in parameters}) == len(parameters)
    return sum(parameter.numel() for parameter in parameters)


def lora_count(module: nn.Module) -> int:
    return count([parameter for name, parameter in module.named_parameters() if "lora_" in name])


def meta_generator(backbone: Backbone, rank: int) -> OneStepGenerator:
    with torch.device("meta"):
        return OneStepGenerator(backbone=backbone, timestep=999, unet_rank=rank, vae_rank=rank)


def test_the_base_networks_have_the_published_sizes(sd21: Backbone) -> None:
    assert count(list(sd21.unet.parameters())) == 865_910_724
    assert count(list(sd21.vae.parameters())) == 83_653_863


def test_258_unet_layers_and_32_vae_layers(sd21: Backbone) -> None:
    unet, vae = unet_targets(sd21.unet), vae_targets(sd21.vae, encoder=True, decoder=False)
    assert sum(map(len, unet.values())) == 258
    assert [(name, len(layers)) for name, layers in vae.items()] == [("default_encoder", 32)]
    assert "quant_conv" in vae["default_encoder"]
    assert "conv_in" in unet["default_encoder"]
    assert "conv_out" in unet["default_decoder"]
    assert all(name.startswith("mid_block") for name in unet["default_others"])
    assert not [name for layers in unet.values() for name in layers if "time_emb" in name or "norm" in name]


def test_the_decoder_is_an_adapter_of_its_own(sd21: Backbone) -> None:
    both = vae_targets(sd21.vae, encoder=True, decoder=True)
    assert set(both) == {"default_encoder", "default_decoder"}
    assert "post_quant_conv" in both["default_decoder"]
    assert not set(both["default_encoder"]) & set(both["default_decoder"])
    assert vae_targets(sd21.vae, encoder=False, decoder=False) == {}


def test_rank_4_makes_the_papers_parameters(sd21: Backbone) -> None:
    generator = meta_generator(sd21, rank=4)
    assert lora_count(generator.unet) == 4_055_712
    assert lora_count(generator.vae) == 369_356
    assert count(generator.trainable_parameters()) == 4_055_712 + 369_356 + 11_840  # conv_in


@pytest.mark.parametrize(("rank", "millions"), [(2, 2.22), (8, 8.86), (16, 17.7)])
def test_other_ranks(sd21: Backbone, rank: int, millions: float) -> None:
    assert count(meta_generator(sd21, rank).trainable_parameters()) / 1e6 == pytest.approx(millions, rel=0.004)


def test_the_score_network_trains_all_of_its_adapters(sd21: Backbone) -> None:
    with torch.device("meta"):
        assert count(build_vsd(sd21).critic_parameters()) == 4_055_712


@pytest.mark.parametrize(("alpha", "scale"), [("fixed", 8 / 2), ("rank", 1.0), ("rslora", 8 / 2**0.5)])
def test_the_alpha_policy_is_the_layers_scale(backbone: Backbone, alpha: AlphaPolicy, scale: float) -> None:
    unet = share_frozen(backbone.unet)
    add_lora(unet, unet_targets(unet), rank=2, alpha=alpha, lora_alpha=8)
    factors = [factor for layer in unet.modules() if isinstance(layer, BaseTunerLayer) for factor in layer.scaling.values()]
    assert factors == [pytest.approx(scale)] * sum(map(len, unet_targets(backbone.unet).values()))
    assert lora_scale(rank=2, alpha=alpha, lora_alpha=8) == pytest.approx(scale)


def test_all_adapters_are_active_and_trainable(backbone: Backbone) -> None:
    unet = share_frozen(backbone.unet)
    targets = unet_targets(unet)
    add_lora(unet, targets, rank=2, alpha="fixed", lora_alpha=8)
    layers = {name: layer for name, layer in unet.named_modules() if isinstance(layer, BaseTunerLayer)}
    assert set(layers) == {name for names in targets.values() for name in names}
    for adapter, names in targets.items():
        for name in names:
            assert adapter in layers[name].active_adapters
            assert list(layers[name].lora_A) == [adapter]
    assert {name for name, parameter in unet.named_parameters() if parameter.requires_grad} == {
        name for name, _ in unet.named_parameters() if "lora_" in name
    }


def test_rank_0_adds_nothing_and_wrong_settings_are_the_users_mistake(backbone: Backbone) -> None:
    unet = share_frozen(backbone.unet)
    add_lora(unet, unet_targets(unet), rank=0, alpha="fixed", lora_alpha=8)
    assert [name for name, _ in unet.named_parameters()] == [name for name, _ in backbone.unet.named_parameters()]
    with pytest.raises(UserError, match="rslora"):
        add_lora(unet, unet_targets(unet), rank=1, alpha=cast("AlphaPolicy", "half"), lora_alpha=8)
    with pytest.raises(UserError, match="negative"):
        add_lora(unet, unet_targets(unet), rank=-1, alpha="fixed", lora_alpha=8)


def test_a_view_is_a_deep_copy_but_for_its_frozen_weights(backbone: Backbone) -> None:
    original = share_frozen(backbone.unet)
    add_lora(original, unet_targets(original), rank=2, alpha="fixed", lora_alpha=8)
    original.mine = {"again": original.mid_block, "nothing": [], "numbers": [1, 2]}
    original.conv_in.forward = original.conv_in.forward  # bound to the layer: the copy's must be the copy's
    view, expected = share_frozen(original), copy.deepcopy(original)
    for (name, module), (other, theirs), mine in zip(view.named_modules(), expected.named_modules(), original.modules(), strict=True):
        assert (name, type(module), list(module.__dict__)) == (other, type(theirs), list(theirs.__dict__))
        for key, value in module.__dict__.items():
            assert type(value) is type(theirs.__dict__[key]), (name, key)
            assert not isinstance(value, dict | list | set | nn.Module) or value is not mine.__dict__[key], (name, key)
    assert view.mine["again"] is view.mid_block
    assert view.conv_in.forward.__self__ is view.conv_in
    for (_, weight), (_, theirs), (_, mine) in zip(
        view.named_parameters(), expected.named_parameters(), original.named_parameters(), strict=True
    ):
        assert torch.equal(weight, theirs)
        assert (weight is mine) == (not mine.requires_grad)


def test_frozen_weights_exist_once_and_trainable_ones_are_copied(backbone: Backbone) -> None:
    backbone.unet.conv_out.requires_grad_(True)
    view = share_frozen(backbone.unet)
    backbone.unet.conv_out.requires_grad_(False)
    theirs = dict(backbone.unet.named_parameters())
    for name, parameter in view.named_parameters():
        assert (parameter.data_ptr() == theirs[name].data_ptr()) == (not name.startswith("conv_out"))
        assert torch.equal(parameter, theirs[name])


def test_lora_on_a_view_leaves_the_original_and_other_views_alone(backbone: Backbone) -> None:
    term = make_vsd(backbone)
    generator = OneStepGenerator(backbone=backbone, timestep=250)
    base = {name: parameter.data_ptr() for name, parameter in backbone.unet.named_parameters()}
    for unet in (generator.unet, term.prior, term.score):
        for name, parameter in unet.named_parameters():
            own = "lora_" in name or (unet is generator.unet and name.startswith("conv_in."))
            assert own or parameter.data_ptr() == base[name.replace(".base_layer", "")], name
    own_conv_in = generator.unet.conv_in.base_layer
    assert own_conv_in.weight.data_ptr() != backbone.unet.conv_in.weight.data_ptr()
    assert not any("lora_" in name for name, _ in [*backbone.named_parameters(), *term.prior.named_parameters()])
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_lora_stays_in_float32_on_a_bfloat16_network(backbone: Backbone) -> None:
    unet = copy.deepcopy(backbone.unet).to(torch.bfloat16)
    add_lora(unet, unet_targets(unet), rank=2, alpha="fixed", lora_alpha=8)
    for name, parameter in unet.named_parameters():
        assert parameter.dtype == (torch.float32 if "lora_" in name else torch.bfloat16)
