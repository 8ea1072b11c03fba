"""DiffBIR's parts: step 0 is the prior, gradients reach what trains, sizes, the 8-channel convolution, restoration guidance."""

from __future__ import annotations

import pytest
import torch
from chain_parts import normal, point_denoise, sd_schedule, seeded_noise
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.errors import UserError
from osediff_exp.methods.chain.ddpm import DDIMSampler
from osediff_exp.methods.chain.denoising import with_adjusted_x0
from osediff_exp.methods.diffbir.cleaning import CleaningNetwork, cleaning_loss
from osediff_exp.methods.diffbir.network import ControlledUNet
from osediff_exp.methods.diffbir.restoration_guidance import RestorationGuidance, edge_weight
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.complexity import count_parameters
from osediff_exp.models.empty_backbone import empty_backbone


def wake(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def inputs(backbone: Backbone, side: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    text = backbone.encode_prompts(["sharp photo", "tree"])
    return normal(2, 4, side, side), torch.tensor([10, 800]), text, normal(2, 4, side, side, seed=1)


# ---- IRControlNet


def test_at_the_start_it_is_the_frozen_prior(backbone: Backbone) -> None:
    z, t, text, condition = inputs(backbone)
    assert torch.equal(ControlledUNet(backbone=backbone)(z, t, text, condition), backbone.unet(z, t, text).sample)


def test_on_the_embedded_backbone_too() -> None:
    backbone = load_backbone(sources=["embedded:tiny"])
    z, t, text, condition = inputs(backbone, side=16)
    assert torch.equal(ControlledUNet(backbone=backbone)(z, t, text, condition), backbone.unet(z, t, text).sample)


def test_once_awake_it_follows_the_condition_and_the_prior_stays_as_it_was(backbone: Backbone) -> None:
    z, t, text, condition = inputs(backbone)
    before = backbone.unet(z, t, text).sample
    network = ControlledUNet(backbone=backbone)
    wake(network)
    first, second = network(z, t, text, condition), network(z, t, text, -condition)
    assert not torch.allclose(first, before, atol=1e-3)
    assert not torch.allclose(first, second, atol=1e-4)
    assert torch.equal(backbone.unet(z, t, text).sample, before)


def test_gradients_reach_the_control_net_and_nothing_else(backbone: Backbone) -> None:
    network = ControlledUNet(backbone=backbone)
    wake(network)
    network(*inputs(backbone)).square().mean().backward()
    for name, parameter in network.named_parameters():
        trains = name.startswith("control.")
        assert parameter.requires_grad == trains == (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)), name
    assert {id(p) for p in network.parameters() if not p.requires_grad} == {id(p) for p in backbone.unet.parameters()}


def test_at_step_0_the_zero_convolutions_are_the_first_to_learn(backbone: Backbone) -> None:
    network = ControlledUNet(backbone=backbone)
    network(*inputs(backbone)).square().mean().backward()
    moved = {name for name, p in network.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    assert moved
    assert all("controlnet_down_blocks" in name or "controlnet_mid_block" in name for name in moved)


def test_the_first_convolution_is_one_of_eight_channels_whose_last_four_start_at_zero(backbone: Backbone) -> None:
    control = ControlledUNet(backbone=backbone).control
    part, own = control.controlnet_cond_embedding, control.conv_in
    assert not part.weight.any()
    assert torch.equal(own.weight, backbone.unet.conv_in.weight)
    nn.init.normal_(part.weight)
    z, condition = normal(1, 4, 6, 6), normal(1, 4, 6, 6, seed=1)
    whole = F.conv2d(torch.cat([z, condition], 1), torch.cat([own.weight, part.weight], 1), own.bias, padding=1)
    torch.testing.assert_close(own(z) + part(condition), whole)


def test_sizes_at_stable_diffusion_2_1() -> None:
    """OSEDiff's Table 2 has 380.0 M trained parameters for DiffBIR: 363.2 M are the control net's and 15.8 M its SwinIR's."""
    with torch.device("meta"):
        network = ControlledUNet(backbone=empty_backbone("sd21"))
    assert count_parameters(p for p in network.parameters() if p.requires_grad) == 363_153_280


# ---- stage 1


def test_sizes_of_the_cleaning_network() -> None:
    """The second is BSRNet's shape (16.7 M)."""
    with torch.device("meta"):
        networks = (CleaningNetwork(), CleaningNetwork(channels=64, growth=32, blocks=23))
    assert [count_parameters(network.parameters()) for network in networks] == [771_715, 16_723_907]


def test_an_untrained_cleaning_network_changes_nothing_at_any_size() -> None:
    network = CleaningNetwork(channels=4, growth=2, blocks=1)
    for height, width in ((16, 16), (9, 14)):
        lq = normal(2, 3, height, width)
        assert torch.equal(network(lq), lq)
        torch.testing.assert_close(cleaning_loss(network, lq, lq + 0.5), torch.tensor(0.25))


def test_the_cleaning_loss_reaches_every_layer_and_falls() -> None:
    torch.manual_seed(0)
    network = CleaningNetwork(channels=4, growth=2, blocks=1)
    lq = normal(2, 3, 16, 16)
    wake(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(10):
        loss = cleaning_loss(network, lq, 0.5 * lq)
        optimizer.zero_grad()
        loss.backward()
        assert all(bool(p.grad.abs().sum() > 0) for p in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_a_network_without_channels_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"channels=0, growth=16 and blocks=4 must be at least 1"):
        CleaningNetwork(channels=0)


# ---- restoration guidance


def test_the_weight_is_one_on_flat_regions_and_falls_at_edges() -> None:
    picture = torch.full((1, 3, 8, 8), -0.2)
    torch.testing.assert_close(edge_weight(picture), torch.ones(1, 1, 8, 8))
    picture[..., 4:] = 0.2
    weight = edge_weight(picture)
    torch.testing.assert_close(weight[..., :2], torch.ones(1, 1, 8, 2))
    # Luma .4 and .6: Sobel's magnitude is 4 * .2 on both sides of the edge, summed over 2 x 2 (one column of each block is at the edge).
    torch.testing.assert_close(weight[0, 0, 3, 2:6], torch.full((4,), 1 - float(torch.tensor(1.6 * 0.9999).tanh())), atol=1e-4, rtol=0)


def test_in_latent_space_the_gradient_is_a_step_towards_the_target() -> None:
    x0, target = normal(2, 4, 4, 4), normal(2, 4, 4, 4, seed=1)
    guidance = RestorationGuidance(scale=64 / 2 / 3000, space="latent")  # the mean over 64 values has the gradient 2 (x - y) / 64
    with torch.inference_mode():
        torch.testing.assert_close(guidance.adjust(x0, torch.tensor([5, 5]), cleaned=target, decode=lambda z: z), target)


def test_in_pixels_it_lowers_the_distance_on_flat_regions_for_each_picture_alone() -> None:
    cleaned = torch.zeros(2, 3, 8, 8)
    latent = normal(2, 3, 4, 4)

    def decode(z: Tensor) -> Tensor:
        return F.interpolate(z, scale_factor=2.0, mode="nearest")

    guidance = RestorationGuidance(scale=0.002)
    both = guidance.adjust(latent, torch.tensor([5, 5]), cleaned=cleaned, decode=decode)
    alone = guidance.adjust(latent[1:], torch.tensor([5]), cleaned=cleaned[1:], decode=decode)
    torch.testing.assert_close(both[1:], alone)
    torch.testing.assert_close(both, latent * (1 - 3000 * 0.002 * 2 * 4 / 192))


def test_it_acts_between_its_timesteps_only_and_not_at_scale_0() -> None:
    x0 = normal(1, 4, 4, 4)
    for guidance in (
        RestorationGuidance(scale=0.0),
        RestorationGuidance(scale=1.0, t_start=300),
        RestorationGuidance(scale=1.0, t_stop=700),
    ):
        assert guidance.adjust(x0, torch.tensor([500]), cleaned=x0 + 1, decode=lambda z: z) is x0


def test_a_chain_follows_it() -> None:
    schedule, target = sd_schedule(), normal(1, 4, 4, 4, seed=2)
    guidance = RestorationGuidance(scale=64 / 2 / 3000, space="latent")
    denoise = with_adjusted_x0(
        point_denoise(schedule, normal(1, 4, 4, 4)),
        lambda x0, t: guidance.adjust(x0, t, cleaned=target, decode=lambda z: z),
        schedule,
    )
    end = DDIMSampler().sample(denoise, normal(1, 4, 4, 4, seed=5), schedule=schedule, steps=3, noise=seeded_noise(0, [0]))
    torch.testing.assert_close(end, target, atol=1e-3, rtol=1e-3)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match=r"scale=-1\.0 must not be negative"):
        RestorationGuidance(scale=-1.0)
    with pytest.raises(UserError, match=r"space=rbg is unknown: use rgb or latent\. Did you mean 'rgb'"):
        RestorationGuidance(scale=1.0, space="rbg")  # type: ignore[arg-type]
