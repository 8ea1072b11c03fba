"""The seam of the loss terms, and the data term."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_parts import make_inputs, make_vsd

from osediff_exp.errors import UserError
from osediff_exp.losses.base import CriticTerm
from osediff_exp.losses.mse import MSELoss
from osediff_exp.models.backbone import Backbone


def test_mse_is_the_mean_square_on_the_networks_range(backbone: Backbone) -> None:
    inputs = make_inputs(backbone, indices=[0, 1])
    black_on_white = replace(inputs, output=torch.full((1, 3, 8, 8), -1.0), target=torch.ones(1, 3, 8, 8))
    assert MSELoss(weight=1.0)(black_on_white).loss.item() == 4.0
    loss = MSELoss(weight=5.0)(inputs).loss
    assert loss.item() == pytest.approx((inputs.output - inputs.target).square().mean().item())
    (gradient,) = torch.autograd.grad(loss, inputs.output)
    assert torch.allclose(gradient, 2 * (inputs.output - inputs.target) / inputs.output.numel())


def test_only_terms_with_networks_of_their_own_are_critics(backbone: Backbone) -> None:
    assert not isinstance(MSELoss(weight=1.0), CriticTerm)
    assert isinstance(make_vsd(backbone), CriticTerm)


def test_a_negative_weight_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="-1.0 for MSELoss"):
        MSELoss(weight=-1.0)
