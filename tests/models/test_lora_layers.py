"""Where it is cheaper a LoRA layer adds its weights first: the same values, and the plain way wherever it must be kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_parts import make_generator, wake_lora
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from osediff_exp.models import lora_layers
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


def test_gradients_in_full_precision_and_switched_off_adapters_are_left_to_peft(pair: Pair) -> None:
    x = torch.randn(2, 6, 16, 16, dtype=torch.float64)
    with plain_lora():
        expected = pair(x)
    assert torch.equal(pair(x), expected)
    single = pair.to(torch.float32)
    with torch.no_grad():
        for layer in (pair.conv1, pair.to_q):
            layer.enable_adapters(False)  # type: ignore[operator]
        base = single.conv1.base_layer(x.float())  # type: ignore[operator, union-attr]
        assert torch.equal(single(x.float()), single.to_q.base_layer(base.permute(0, 2, 3, 1)))  # type: ignore[operator, union-attr]


def mixed_pass(network: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the output under bf16 autocast and its gradients."""
    network.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(x)
    output.float().square().sum().backward()
    return [output.detach().float(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]


def apart(found: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("small", [0, 1000], ids=["added", "merged"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mixed_precision_is_as_near_to_full_as_pefts(
    pair: Pair, small: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_layers, "SMALL", small)
    network = pair.to(torch.float32)
    x = torch.randn(4, 6, 16, 16)
    full = network(x)
    full.square().sum().backward()
    expected = [full.detach(), *(p.grad.clone() for p in network.parameters() if p.grad is not None)]
    with plain_lora():
        pefts = mixed_pass(network, x)
    found = mixed_pass(network.to(memory_format=layout), x)  # type: ignore[call-overload]
    assert len(found) == len(expected) == 5
    assert 0 < apart(found, expected) < 1.5 * apart(pefts, expected) + 1e-3
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert apart([network(x).float()], expected[:1]) < 2**-7


@pytest.mark.parametrize("layer", [nn.Linear(3, 8, bias=False), nn.Conv2d(3, 8, 1, bias=False)], ids=["linear", "conv"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_second_product_and_the_sum_are_one_call_where_maps_lie_for_it(
    layer: nn.Linear | nn.Conv2d, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    maps = isinstance(layer, nn.Conv2d)
    y, u = (torch.randn(2, c, 4, 5).to(memory_format=layout) if maps else torch.randn(2, 7, c) for c in (8, 3))
    y.requires_grad_()
    u.requires_grad_()
    with profile(activities=[ProfilerActivity.CPU]) as calls:
        found = lora_layers._plus(y, u, layer, 0.5)
    expected = y + 0.5 * layer(u)
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.stride() == expected.stride()
    assert ("aten::addmm" in {call.name for call in calls.events()}) == (not maps or layout == torch.channels_last)  # type: ignore[union-attr]
    weights = torch.randn(found.shape)
    both = (torch.autograd.grad((result * weights).sum(), [y, u, layer.weight]) for result in (found, expected))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*both, strict=True))


def test_an_update_below_what_bf16_resolves_is_right_on_average() -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"to_q": nn.Linear(64, 64, bias=False)}).requires_grad_(False)
    add_lora(network, {"default": ["to_q"]}, rank=8, alpha="rank", lora_alpha=8)
    layer: Any = network["to_q"]
    layer.lora_B["default"].weight.data.normal_(std=1e-4)
    x = torch.randn(256, 64)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        weight = layer._merged(x, "default", 256).float()
    update = layer.get_delta_weight("default").detach()
    assert update.abs().median() < layer.base_layer.weight.abs().median() * 2**-10
    moved = weight - layer.base_layer.weight.bfloat16().float()
    assert float((moved * update).sum() / update.square().sum()) == pytest.approx(1, abs=0.25)


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
