"""The seam of the loss terms, and the data term."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_parts import make_inputs, make_vsd

from osediff_exp.errors import UserError
from osediff_exp.losses.base import CriticTerm
from osediff_exp.losses.mse import MSELoss
from osediff_exp.losses.ssim import SSIMLoss
from osediff_exp.metrics.ssim_y import ssim_y
from osediff_exp.models.backbone import Backbone


def test_mse_is_the_mean_square_on_the_networks_range(backbone: Backbone) -> None:
    inputs = make_inputs(backbone, indices=[0, 1])
    black_on_white = replace(inputs, output=torch.full((1, 3, 8, 8), -1.0), target=torch.ones(1, 3, 8, 8))
    assert MSELoss(weight=1.0)(black_on_white).loss.item() == 4.0
    loss = MSELoss(weight=5.0)(inputs).loss
    assert loss.item() == pytest.approx((inputs.output - inputs.target).square().mean().item())
    (gradient,) = torch.autograd.grad(loss, inputs.output)
    assert torch.allclose(gradient, 2 * (inputs.output - inputs.target) / inputs.output.numel())


def test_the_ssim_term_is_one_minus_the_metric_but_for_its_rounding(backbone: Backbone) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(2, 3, 40, 56, generator=generator)
    output = (target + 0.1 * torch.randn(target.shape, generator=generator)).clamp(0, 1)
    inputs = replace(make_inputs(backbone, indices=[0, 1]), output=(2 * output - 1).requires_grad_(), target=2 * target - 1)
    loss = SSIMLoss(weight=1.0)(inputs).loss
    assert loss.item() == pytest.approx(1 - ssim_y(output, target).mean().item(), abs=2e-3)
    (gradient,) = torch.autograd.grad(loss, inputs.output)
    assert SSIMLoss(weight=1.0)(replace(inputs, output=(inputs.output - gradient / gradient.abs().max() * 0.01).detach())).loss < loss


def test_the_ssim_term_computes_in_float32_under_autocast_and_is_zero_for_equal_pictures(backbone: Backbone) -> None:
    inputs = make_inputs(backbone, indices=[0, 1])
    flat = torch.zeros(1, 3, 16, 16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = SSIMLoss(weight=1.0)(replace(inputs, output=flat, target=flat.detach())).loss
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    (gradient,) = torch.autograd.grad(loss, flat)
    assert gradient.isfinite().all()


def test_pictures_smaller_than_ssims_window_are_the_users_mistake(backbone: Backbone) -> None:
    small = torch.zeros(1, 3, 8, 16)
    with pytest.raises(UserError, match="windows of 11 px"):
        SSIMLoss(weight=1.0)(replace(make_inputs(backbone, indices=[0]), output=small, target=small))


def test_only_terms_with_networks_of_their_own_are_critics(backbone: Backbone) -> None:
    assert not isinstance(MSELoss(weight=1.0), CriticTerm)
    assert isinstance(make_vsd(backbone), CriticTerm)


def test_a_negative_weight_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="-1.0 for MSELoss"):
        MSELoss(weight=-1.0)
