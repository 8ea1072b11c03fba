"""PASD's pixel embedding: a clean picture at every scale, nothing for the control net at first."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from osediff_exp.methods.pasd.degradation_removal import DegradationRemoval, removal_loss
from osediff_exp.methods.pixel_control import embedding_widths


def build(factor: int) -> DegradationRemoval:
    torch.manual_seed(1)
    return DegradationRemoval(widths=embedding_widths(factor), num_channels=8)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_picture_at_every_scale_down_to_the_latents(factor: int) -> None:
    removed = build(factor)(torch.rand(2, 3, 32, 48))
    assert removed.embedding.shape == (2, 8, 32 // factor, 48 // factor)
    sizes = [(32 >> k, 48 >> k) for k in range(1, factor.bit_length())]
    assert [tuple(rgb.shape) for rgb in removed.rgbs] == [(2, 3, *size) for size in sizes]


def test_at_first_the_control_net_is_told_nothing_but_the_heads_learn() -> None:
    network = build(4)
    removed = network(torch.rand(1, 3, 16, 16))
    assert not removed.embedding.any()
    removal_loss(removed.rgbs, torch.rand(1, 3, 16, 16)).backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == {"conv_out.weight", "conv_out.bias"}


def test_the_loss_is_the_sum_of_mean_distances() -> None:
    target = torch.full((2, 3, 8, 8), 0.5)
    rgbs = [torch.full((2, 3, 4, 4), 0.25), torch.full((2, 3, 2, 2), -0.5)]
    assert float(removal_loss(rgbs, target)) == pytest.approx(0.25 + 1.0)


def test_a_target_is_halved_by_the_mean_of_two_by_two() -> None:
    target = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(2))
    halved: Tensor = target.unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-2, -1))
    assert float(removal_loss([halved], target)) == pytest.approx(0.0, abs=1e-7)
