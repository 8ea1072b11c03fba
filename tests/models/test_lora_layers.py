"""Without gradients a LoRA layer adds its weights first: the same values, and the plain way wherever it must be kept."""

from __future__ import annotations

import pytest
import torch
from tiny_parts import make_generator, wake_lora
from torch import Tensor, nn

from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.models.lora import add_lora
from osediff_exp.models.lora_layers import plain_lora


class Pair(nn.Module):
    """A convolution of stride 2 and a linear layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.to_q = nn.Conv2d(6, 10, 3, stride=2, padding=1), nn.Linear(10, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_q(self.conv1(x).permute(0, 2, 3, 1))


@pytest.fixture
def pair() -> Pair:
    torch.manual_seed(0)
    network = Pair().double().requires_grad_(False)
    add_lora(network, {"default": ["conv1", "to_q"]}, rank=3, alpha="fixed", lora_alpha=8)
    wake_lora(network)
    for parameter in network.parameters():
        parameter.data = parameter.data.double()
    return network


def both_ways(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        merged = network(x)
        with plain_lora():
            return merged, network(x)


@pytest.mark.parametrize("side", [2, 16])
def test_the_values_are_pefts(pair: Pair, side: int) -> None:
    merged, plain = both_ways(pair, torch.randn(2, 6, side, side, dtype=torch.float64))
    assert torch.allclose(merged, plain, rtol=0, atol=1e-12)
    assert torch.equal(merged, plain) == (side == 2)  # so few places are cheaper the plain way


def test_gradients_half_precision_and_switched_off_adapters_are_left_to_peft(pair: Pair) -> None:
    x = torch.randn(2, 6, 16, 16, dtype=torch.float64)
    with plain_lora():
        expected = pair(x)
    assert torch.equal(pair(x), expected)
    half = pair.to(torch.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        seen = half(x.float())
        with plain_lora():
            assert torch.equal(seen, half(x.float()))
    with torch.no_grad():
        for layer in (pair.conv1, pair.to_q):
            layer.enable_adapters(False)  # type: ignore[operator]
        base = half.conv1.base_layer(x.float())  # type: ignore[operator, union-attr]
        assert torch.equal(half(x.float()), half.to_q.base_layer(base.permute(0, 2, 3, 1)))  # type: ignore[operator, union-attr]


def test_a_weight_that_changes_is_seen_at_once(pair: Pair) -> None:
    x = torch.randn(1, 6, 16, 16, dtype=torch.float64)
    before = both_ways(pair, x)[0]
    pair.conv1.lora_B["default"].weight.data.mul_(2)  # type: ignore[union-attr, index, operator]
    merged, plain = both_ways(pair, x)
    assert not torch.allclose(merged, before)
    assert torch.allclose(merged, plain, rtol=0, atol=1e-12)


def test_a_generator_restores_alike_both_ways(backbone: Backbone) -> None:
    generator: OneStepGenerator = make_generator(backbone)
    wake_lora(generator)
    x, prompts = torch.rand(2, 3, 32, 32) * 2 - 1, backbone.encode_prompts(["sharp photo"] * 2)
    with torch.no_grad():
        merged = generator(x, prompts).image
        with plain_lora():
            plain = generator(x, prompts).image
    assert torch.allclose(merged, plain, atol=1e-5)
    assert not torch.equal(merged, plain)
