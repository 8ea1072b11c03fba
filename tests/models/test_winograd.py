"""Winograd's convolutions are convolutions, and restore the same pictures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.models import winograd as module
from osediff_exp.models.backbone import load_backbone
from osediff_exp.models.winograd import ChannelsFirstAttention, WinogradConv2d, winograd_conv2d, winograd_layers
from osediff_exp.restoration.restorer import Restorer

has_nnpack = getattr(torch, "_nnpack_available", lambda: False)
pytestmark = pytest.mark.skipif(not has_nnpack(), reason="this build of PyTorch has no NNPACK")


@pytest.fixture
def serves(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    def choose(answer: bool) -> None:
        monkeypatch.setattr(module, "winograd_serves", lambda: answer)
        monkeypatch.setattr("osediff_exp.restoration.restorer.winograd_serves", lambda: answer)

    return choose


def pair(channels: int, outputs: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, channels, height, width, generator=generator)
    weight = torch.randn(outputs, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    return x, weight, torch.randn(outputs, generator=generator)


@pytest.mark.parametrize("padding", [(1, 1), (0, 0), (0, 1), (1, 0)])
@pytest.mark.parametrize("shape", [(3, 5, 37, 41), (16, 8, 12, 100), (4, 3, 3, 3), (32, 32, 64, 64)])
def test_it_is_the_convolution_but_for_rounding_and_the_same_bits_in_strips(shape: tuple[int, ...], padding: tuple[int, int]) -> None:
    x, weight, bias = pair(*shape)
    expected = F.conv2d(x.double(), weight.double(), bias.double(), padding=padding)
    found = winograd_conv2d(x, weight, bias, padding)
    assert (found - expected).abs().max() < 1e-4
    assert found.is_contiguous()
    for workspace in (1, 4 * 64 * -(-shape[3] // 6) * (shape[0] + shape[1]) * 2):
        assert torch.equal(winograd_conv2d(x, weight, bias, padding, workspace=workspace), found)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(winograd_conv2d(last, weight.contiguous(memory_format=torch.channels_last), bias, padding), found)


def test_a_layer_takes_it_where_it_serves_and_no_gradient_is_asked_for(
    serves: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer, x = nn.Conv2d(8, 4, 3, padding=1), torch.randn(2, 8, 40, 40)
    expected = layer(x)
    calls: list[Tensor] = []

    def counted(picture: Tensor, *settings: object, **more: object) -> Tensor:
        calls.append(picture)
        return winograd_conv2d(picture, *settings, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "winograd_conv2d", counted)
    winograd_layers(layer)
    assert type(layer) is WinogradConv2d
    serves(True)
    with torch.no_grad():
        found = layer(x)
        assert len(calls) == 2  # a picture comes out the same alone and among others
        assert torch.equal(found[:1], layer(x[:1]))
        assert torch.allclose(found, expected, atol=1e-4)
        calls.clear()
        assert torch.equal(layer(x[:, :, :20, :20]), F.conv2d(x[:, :, :20, :20], layer.weight, layer.bias, padding=1))  # too small
        assert layer(x[:0]).shape == (0, 4, 40, 40)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        assert layer.double()(x.double()).dtype == torch.float64
    assert torch.allclose(layer.float()(x), expected)
    serves(False)
    with torch.no_grad():
        assert torch.equal(layer(x), expected)
    assert not calls
    layer(x).sum().backward()
    assert layer.weight.grad is not None


def test_other_convolutions_stay_what_they_are() -> None:
    kinds = {"stride": 2, "dilation": 2, "groups": 2, "padding_mode": "reflect"}
    layers = [nn.Conv2d(4, 4, 3, padding=1, **{key: value}) for key, value in kinds.items()]  # type: ignore[arg-type]
    layers += [nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 5)]
    winograd_layers(*layers)
    assert all(type(layer) is nn.Conv2d for layer in layers)
    same = nn.Conv2d(4, 4, 3, padding="same")
    winograd_layers(same)
    with torch.no_grad():
        assert same(torch.randn(1, 4, 40, 40)).shape == (1, 4, 40, 40)


@pytest.mark.parametrize("decoder", [None, "light"])
def test_a_restorer_gives_the_same_picture_with_it_and_without(serves: Callable[[bool], None], decoder: str | None) -> None:
    picture = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    serves(False)
    plain = Restorer.from_checkpoint("embedded", decoder=decoder, device="cpu")
    expected = plain.restore(picture)
    serves(True)
    restorer = Restorer.from_checkpoint("embedded", decoder=decoder, device="cpu")
    kinds = [type(layer) for layer in restorer.generator.modules()]
    assert kinds.count(WinogradConv2d) > 20
    if decoder:
        assert WinogradConv2d in map(type, load_light(restorer).modules())
    found = restorer.restore(picture)
    assert (found - expected).abs().max() < 0.1 / 255
    assert torch.equal(restorer.restore(picture), found)
    assert torch.allclose(restorer.restore(picture.repeat(2, 1, 1, 1))[1:], found, atol=1e-5)


def load_light(restorer: Restorer) -> nn.Module:
    assert restorer.generator.light_decoder is not None
    return restorer.generator.light_decoder.network


def test_nothing_of_the_callers_is_changed(serves: Callable[[bool], None]) -> None:
    serves(True)
    backbone = load_backbone(sources=["embedded:tiny"])
    restorer = Restorer.from_checkpoint("embedded", backbone=backbone, device="cpu")
    networks = backbone.unet, backbone.vae, restorer.generator
    kinds = {type(layer) for network in networks for layer in network.modules()}
    assert nn.Conv2d in kinds
    assert not {WinogradConv2d, ChannelsFirstAttention} & kinds


def test_a_vaes_attention_hands_on_channels_first() -> None:
    torch.manual_seed(0)
    attention = Attention(8, heads=1, dim_head=8, bias=True, norm_num_groups=4, residual_connection=True)
    x = torch.randn(1, 8, 6, 5)
    with torch.no_grad():
        expected = attention(x)
        assert not expected.is_contiguous()
        for _ in range(2):
            winograd_layers(attention)
        assert attention(x).is_contiguous()
        assert torch.equal(attention(x), expected)
