"""Optimizers that share one backward pass: clipping, and fp16's scaler."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import nn

from osediff_exp.module.stepping import Trained, step_together


class Plain(LightningOptimizer):
    """Lightning's wrapper without a trainer behind it."""

    def step(self, closure: object = None, **kwargs: object) -> None:
        self._optimizer.step()


def player(name: str, gradient: list[float]) -> Trained:
    parameter = nn.Parameter(torch.zeros(len(gradient)))
    parameter.grad = torch.tensor(gradient)
    return Trained(name, [parameter], Plain(torch.optim.SGD([parameter], lr=0.5)))


def test_each_player_is_clipped_by_its_own_norm() -> None:
    players = [player("generator", [3.0, 4.0]), player("own", [0.3, 0.4])]
    logs = step_together(players, clip_norm=1.0, scaler=None)
    assert players[0].parameters[0].tolist() == pytest.approx([-0.3, -0.4], rel=1e-5)
    assert players[1].parameters[0].tolist() == pytest.approx([-0.15, -0.2], rel=1e-5)
    assert logs["train/grad_norm/generator"].item() == pytest.approx(5.0)
    assert logs["train/grad_norm/own"].item() == pytest.approx(0.5)
    assert logs["train/lr/own"].item() == 0.5
    assert all(parameter.grad is None for one in players for parameter in one.parameters)


def test_without_a_limit_nothing_is_clipped() -> None:
    one = player("generator", [30.0, 40.0])
    step_together([one], clip_norm=0.0, scaler=None)
    assert one.parameters[0].tolist() == [-15.0, -20.0]


@pytest.mark.parametrize("growth_interval", [1, 1000])
def test_all_players_gradients_are_divided_by_the_same_factor(growth_interval: int) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=growth_interval)
    scaler.scale(torch.zeros(()))  # as the backward pass does
    players = [player(name, [8 * 0.5, 8 * 1.0]) for name in ("generator", "a", "b")]
    logs = step_together(players, clip_norm=0.0, scaler=scaler)
    for one in players:
        assert one.parameters[0].tolist() == [-0.25, -0.5]
        assert logs[f"train/grad_norm/{one.name}"].item() == pytest.approx(math.sqrt(1.25))
    assert scaler.get_scale() == (16.0 if growth_interval == 1 else 8.0)


def test_an_overflow_costs_all_players_the_step_alike() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.zeros(()))
    players = [player("generator", [float("inf"), 1.0]), player("own", [8 * 0.3, 8 * 0.4])]
    step_together(players, clip_norm=1.0, scaler=scaler)
    assert [one.parameters[0].tolist() for one in players] == [[0.0, 0.0]] * 2
    assert all(one.parameters[0].grad is None for one in players)
    assert scaler.get_scale() == 4.0


def test_without_a_scaler_a_bad_gradient_or_a_veto_costs_the_same() -> None:
    for gradient, veto in (([float("nan"), 1.0], {}), ([0.1, 0.1], {"may_step": lambda norms: len(norms) != 2})):
        players = [player("generator", gradient), player("own", [0.3, 0.4])]
        step_together(players, clip_norm=1.0, scaler=None, **veto)  # type: ignore[arg-type]
        assert [one.parameters[0].tolist() for one in players] == [[0.0, 0.0]] * 2
