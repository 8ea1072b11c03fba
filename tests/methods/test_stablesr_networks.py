"""StableSR's parts: step 0 is the prior, gradients reach what trains, sizes at Stable Diffusion 2.1, CFW is neutral at w = 0."""

from __future__ import annotations

import copy

import pytest
import torch
from chain_parts import normal
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.methods.carried_maps import CarriedMaps, trainable_input
from osediff_exp.methods.dense_blocks import DenseBlock, ResidualDenseBlock
from osediff_exp.methods.stablesr.encoder import TimeAwareEncoder, encoder_width
from osediff_exp.methods.stablesr.fusing import FusedBlock, add_fusion, set_fusion_weight
from osediff_exp.methods.stablesr.network import StructureUNet
from osediff_exp.methods.stablesr.sharpening import gaussian_blur, unsharp_mask
from osediff_exp.methods.stablesr.spade import ModulatedConv, Spade, modulate
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.complexity import count_parameters
from osediff_exp.models.empty_backbone import empty_backbone
from osediff_exp.models.views import share_frozen


def wake(module: nn.Module) -> None:
    """Give everything that trains values of its own, so that nothing hides behind a zero."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def inputs(backbone: Backbone, side: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    text = backbone.encode_prompts(["sharp photo", "tree"])
    return normal(2, 4, side, side), torch.tensor([10, 800]), text, normal(2, 4, side, side, seed=1)


def make(backbone: Backbone, **settings: bool) -> StructureUNet:
    torch.manual_seed(0)
    return StructureUNet(backbone=backbone, **settings).eval()


def test_at_the_start_it_is_the_frozen_prior(backbone: Backbone) -> None:
    z, t, text, lq = inputs(backbone)
    assert torch.equal(make(backbone)(z, t, text, lq), backbone.unet(z, t, text).sample)


def test_the_released_formula_is_not(backbone: Backbone) -> None:
    z, t, text, lq = inputs(backbone)
    released = make(backbone, neutral=False)
    assert not torch.allclose(released(z, t, text, lq), backbone.unet(z, t, text).sample, atol=1e-3)


def test_on_the_embedded_backbone_too() -> None:
    backbone = load_backbone(sources=["embedded:tiny"])
    z, t, text, lq = inputs(backbone, side=16)
    assert torch.equal(make(backbone)(z, t, text, lq), backbone.unet(z, t, text).sample)


def test_once_awake_it_follows_the_low_quality_latent_and_the_prior_stays_as_it_was(backbone: Backbone) -> None:
    z, t, text, lq = inputs(backbone)
    before = backbone.unet(z, t, text).sample
    network = make(backbone)
    wake(network)
    first, second = network(z, t, text, lq), network(z, t, text, -lq)
    assert not torch.allclose(first, before, atol=1e-3)
    assert not torch.allclose(first, second, atol=1e-4)
    assert torch.equal(backbone.unet(z, t, text).sample, before)
    assert not any(isinstance(module, ModulatedConv) for module in backbone.unet.modules())


def test_gradients_reach_encoder_and_spade_and_nothing_else(backbone: Backbone) -> None:
    network = make(backbone)
    wake(network)
    network(*inputs(backbone)).square().mean().backward()
    for name, parameter in network.named_parameters():
        trains = name.startswith("encoder.") or ".spade." in name
        assert parameter.requires_grad == trains, name
        # A constant added to all keys changes no attention.
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == trains or name.endswith("to_k.bias"), name


def test_at_step_0_the_zero_layers_are_the_first_to_learn(backbone: Backbone) -> None:
    network = make(backbone)
    network(*inputs(backbone)).square().mean().backward()
    moved = {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    assert moved
    assert all(".spade.gamma." in name or ".spade.beta." in name for name in moved)


def test_the_frozen_weights_exist_once(backbone: Backbone) -> None:
    frozen = {id(p) for p in make(backbone).parameters() if not p.requires_grad}
    assert frozen == {id(p) for p in backbone.unet.parameters()}


def test_a_copy_has_maps_of_its_own(backbone: Backbone) -> None:
    z, t, text, lq = inputs(backbone)
    network = make(backbone)
    wake(network)
    expected = network(z, t, text, lq)
    twin = copy.deepcopy(network)
    network(z, t, text, -lq)
    torch.testing.assert_close(twin(z, t, text, lq), expected)


def test_every_resblock_is_modulated_once(backbone: Backbone) -> None:
    network = make(backbone)
    layers = [name for name, module in network.named_modules() if isinstance(module, ModulatedConv)]
    assert len(layers) == len([name for name, _ in backbone.unet.named_modules() if name.endswith("conv2")])
    assert {name.split(".")[1] for name in layers} == {"down_blocks", "mid_block", "up_blocks"}


def test_spade_is_h_plus_norm_times_gamma_plus_beta() -> None:
    spade = Spade(channels=4, map_channels=6, hidden=3, groups=2)
    wake(spade)
    hidden, structure = normal(2, 4, 5, 5), normal(2, 6, 5, 5, seed=1)
    inner = torch.relu(spade.shared(structure))
    torch.testing.assert_close(spade(hidden, structure), hidden + spade.norm(hidden) * spade.gamma(inner) + spade.beta(inner))
    spade.neutral = False
    torch.testing.assert_close(spade(hidden, structure), spade.norm(hidden) * (1 + spade.gamma(inner)) + spade.beta(inner))


def test_a_norm_that_trains_takes_a_photo_s_memory_format() -> None:
    """In torch 2.13 a GroupNorm's backward pass on channels-last features without a gradient ends the process."""
    frozen = normal(2, 4, 5, 5).half().to(memory_format=torch.channels_last)
    assert trainable_input(frozen).is_contiguous()
    assert trainable_input(frozen).dtype == torch.float32
    spade = Spade(channels=4, map_channels=6, hidden=3, groups=2)
    wake(spade)
    spade(frozen, normal(2, 6, 5, 5, seed=1)).float().square().sum().backward()
    assert bool(spade.norm.weight.grad.abs().sum() > 0)


def test_the_encoder_knows_the_timestep_and_halves_each_level() -> None:
    torch.manual_seed(0)
    encoder = TimeAwareEncoder(in_channels=4, width=8, levels=3, groups=4)
    latent = normal(1, 4, 12, 16)
    early, late = encoder(latent, torch.tensor([3])), encoder(latent, torch.tensor([900]))
    assert [tuple(each.shape) for each in early] == [(1, 8, 12, 16), (1, 8, 6, 8), (1, 8, 3, 4)]
    assert all(not torch.allclose(a, b, atol=1e-4) for a, b in zip(early, late, strict=True))


def test_the_released_proportions() -> None:
    assert [encoder_width(320, groups=32), encoder_width(64, groups=16), encoder_width(8, groups=4)] == [256, 48, 4]


def test_a_unet_without_resblocks_is_named() -> None:
    with pytest.raises(UserError, match=r"method=stablesr needs a U-Net of ResnetBlock2D blocks"):
        modulate(nn.Linear(2, 2), maps=CarriedMaps(), map_channels=8, groups=4)


# ---- Stable Diffusion 2.1


def test_sizes_at_stable_diffusion_2_1() -> None:
    """OSEDiff's Table 2 has 150.0 M trained parameters, and 1,410 M in all, 120 M more than the prior: the two disagree by 30 M.

    The released configuration gives what is counted here: 105.5 M for encoder and SPADE, 135.4 M with CFW.
    """
    backbone = empty_backbone("sd21")
    with torch.device("meta"):
        network, vae = StructureUNet(backbone=backbone), share_frozen(backbone.vae)
        add_fusion(vae)
    encoder = count_parameters(network.encoder.parameters())
    trained = count_parameters(p for p in network.parameters() if p.requires_grad)
    fusion = count_parameters(p for p in vae.parameters() if p.requires_grad)
    assert (encoder, trained - encoder, fusion) == (52_494_080, 53_020_160, 29_903_104)


# ---- CFW


def make_vae(backbone: Backbone) -> nn.Module:
    torch.manual_seed(0)
    vae = share_frozen(backbone.vae)
    add_fusion(vae)
    return vae


def test_cfw_at_w_0_is_the_frozen_decoder_and_at_half_half_of_the_change(backbone: Backbone) -> None:
    vae, image, latent = make_vae(backbone), normal(2, 3, 16, 16).clamp(-1, 1), normal(2, 4, 8, 8, seed=1)
    posterior = vae.encode(image).latent_dist.mode()
    assert torch.equal(posterior, backbone.vae.encode(image).latent_dist.mode())
    set_fusion_weight(vae, 0.0)
    assert torch.equal(vae.decode(latent).sample, backbone.vae.decode(latent).sample)
    set_fusion_weight(vae, 1.0)
    assert not torch.allclose(vae.decode(latent).sample, backbone.vae.decode(latent).sample, atol=1e-3)


def test_cfw_adds_w_times_the_fusion(backbone: Backbone) -> None:
    vae = make_vae(backbone)
    (block,) = [module for module in vae.modules() if isinstance(module, FusedBlock)]
    x = normal(1, 16, 4, 4)
    block.maps[block.level] = encoded = normal(1, 16, 4, 4, seed=1)
    block.w = 0.5
    decoded = block.block(x, None)
    torch.testing.assert_close(block(x, None), decoded + 0.5 * block.fusion(encoded, decoded))


def test_cfw_trains_alone(backbone: Backbone) -> None:
    vae = make_vae(backbone)
    vae.encode(normal(1, 3, 16, 16))
    vae.decode(normal(1, 4, 8, 8)).sample.square().mean().backward()
    for name, parameter in vae.named_parameters():
        trains = ".fusion." in name
        assert parameter.requires_grad == trains == (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)), name


def test_the_embedded_vae_is_fused_at_its_middle_level_and_sd21_at_two() -> None:
    with torch.device("meta"):
        for architecture, expected in (("embedded:tiny", [64]), ("sd21", [256, 512])):
            vae = share_frozen(empty_backbone(architecture).vae)
            add_fusion(vae)
            widths = [b.fusion.last.out_channels for b in vae.modules() if isinstance(b, FusedBlock)]
            assert sorted(widths) == expected


def test_dense_blocks_scale_what_they_add() -> None:
    x, block, nested = normal(1, 4, 3, 3), DenseBlock(4, growth=3), ResidualDenseBlock(4, growth=3)
    for parameter in (*block.parameters(), *nested.parameters()):
        nn.init.zeros_(parameter)
    torch.testing.assert_close(block(x), x)
    torch.testing.assert_close(nested(x), 1.2 * x)
    nn.init.ones_(block.layers[-1].bias)
    torch.testing.assert_close(block(x), x + 0.2)


# ---- targets


def test_the_unsharp_mask_leaves_flat_regions_and_steepens_edges() -> None:
    flat = torch.full((1, 3, 20, 20), 0.4)
    torch.testing.assert_close(unsharp_mask(flat), flat)
    edge = torch.full((2, 3, 64, 64), 0.3)
    edge[..., 32:] = 0.7
    sharp = unsharp_mask(edge)
    assert float(sharp[0, 0, 32, 32]) > 0.75
    assert float(sharp[0, 0, 32, 31]) < 0.25
    assert float(sharp.min()) >= 0
    assert float(sharp.max()) <= 1


def test_the_blur_is_a_gaussian_of_sigma_8_and_keeps_the_mean() -> None:
    point = torch.zeros(1, 1, 101, 101)
    point[..., 50, 50] = 1
    blurred = gaussian_blur(point)
    assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
    assert float(blurred[0, 0, 50, 58] / blurred[0, 0, 50, 50]) == pytest.approx(float(torch.tensor(-0.5).exp()), rel=1e-4)
