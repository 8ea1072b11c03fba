"""The pixel embedding's size follows the VAE; by tiles it gives the same."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetConditioningEmbedding
from network_parts import make_inputs, wake

from osediff_exp.methods.pixel_control import control, control_net, embed_by_tiles, embedding_widths
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.tiling import Tiling


@pytest.mark.parametrize(
    ("factor", "widths"),
    [(1, (16,)), (2, (16, 32)), (4, (16, 32, 96)), (8, (16, 32, 96, 256)), (16, (16, 32, 96, 256, 256)), (32, (16, 32, 96, 256, 256, 256))],
)
def test_a_stride_for_each_halving(factor: int, widths: tuple[int, ...]) -> None:
    assert embedding_widths(factor) == widths
    assert 2 ** (len(widths) - 1) == factor


def test_the_control_net_is_the_unets_encoder_and_silent(backbone: Backbone) -> None:
    network, embedding = control_net(backbone.unet, vae_factor=backbone.vae_factor)
    copied = backbone.unet.state_dict()
    shared = [name for name in network.state_dict() if name in copied]
    assert shared
    assert all(torch.equal(network.state_dict()[name], copied[name]) for name in shared)
    assert all(parameter.requires_grad for parameter in network.parameters())
    inputs = make_inputs(backbone)
    condition = embedding(inputs.lq)
    assert condition.shape[-2:] == inputs.z_t.shape[-2:]
    assert not condition.any()
    features = control(network, inputs.z_t, inputs.t, inputs.text, condition)
    assert not any(feature.any() for feature in (*features.skips, features.middle))


def test_features_come_in_the_precision_of_the_latents(backbone: Backbone) -> None:
    network, embedding = control_net(backbone.unet, vae_factor=backbone.vae_factor)
    inputs = make_inputs(backbone)
    half = [tensor.bfloat16() for tensor in (inputs.z_t, inputs.text, embedding(inputs.lq))]
    skips, middle = control(network, half[0], inputs.t, half[1], half[2])
    assert {feature.dtype for feature in (*skips, middle)} == {torch.bfloat16}


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_tiles_make_no_difference(factor: int) -> None:
    torch.manual_seed(2)
    embedding = ControlNetConditioningEmbedding(5, block_out_channels=tuple(4 + k for k in range(len(embedding_widths(factor)))))
    wake(embedding)
    image = torch.rand(2, 3, 40 * factor, 36 * factor)
    tiling = Tiling(encoder_tile=max(26 * factor, 128), encoder_overlap=0)
    with torch.no_grad():
        whole = embedding(image)
    parts = embed_by_tiles(embedding, image, vae_factor=factor, tiling=tiling, device=image.device)
    assert whole.shape == (2, 5, 40, 36)
    assert torch.allclose(parts, whole, atol=1e-5)
