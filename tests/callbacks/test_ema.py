"""The moving average against its closed form, and what is validated with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from osediff_exp.callbacks.ema import GeneratorEMA, warmed_up_decay
from osediff_exp.errors import UserError


class Module(nn.Module):
    """A generator of one trained and one frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Module()
        self.generator.weight = nn.Parameter(torch.zeros(3))
        self.generator.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.steps_taken = 0
        self.device = torch.device("cpu")


TRAINER: Any = SimpleNamespace()


def walk(ema: GeneratorEMA, module: Any, values: list[float], micro_batches: int = 1) -> None:
    for value in values:
        for m in range(micro_batches):
            if m == micro_batches - 1:
                module.generator.weight.data.fill_(value)
                module.steps_taken += 1
            ema.on_train_batch_end(TRAINER, module, None, None, 0)


def closed_form(decay: float, values: list[float]) -> float:
    """Return sum_k v_k (1 - d_k) prod_{j > k} d_j, from a start of 0."""
    decays = [min(decay, (1 + n) / (10 + n)) for n in range(1, len(values) + 1)]
    total = 0.0
    for k, value in enumerate(values):
        later = torch.tensor(decays[k + 1 :], dtype=torch.float64).prod().item()
        total += value * (1 - decays[k]) * later
    return total


def test_the_decay_warms_up() -> None:
    assert [warmed_up_decay(0.999, n) for n in (0, 1, 80)] == pytest.approx([0.1, 2 / 11, 81 / 90])
    assert warmed_up_decay(0.999, 10**6) == 0.999


@pytest.mark.parametrize("decay", [0.2, 0.999])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_the_average_is_the_closed_form(decay: float, micro_batches: int) -> None:
    module, ema, values = Module(), GeneratorEMA(decay=decay), [1.0, 5.0, -2.0, 4.0]
    ema.on_train_start(TRAINER, module)
    walk(ema, module, values, micro_batches)
    assert list(ema.average) == ["weight"]
    assert ema.average["weight"].tolist() == pytest.approx([closed_form(decay, values)] * 3, rel=1e-5)


def test_validation_sees_the_average_and_training_goes_on_with_its_own_weights() -> None:
    module, ema = Module(), GeneratorEMA(decay=0.9)
    ema.on_train_start(TRAINER, module)
    walk(ema, module, [1.0, 2.0])
    average = ema.average["weight"].clone()
    ema.on_validation_start(TRAINER, module)
    assert torch.equal(module.generator.weight, average)
    ema.on_validation_end(TRAINER, module)
    assert module.generator.weight.tolist() == [2.0] * 3
    assert torch.equal(ema.average["weight"], average)


def test_a_run_without_averaging_ignores_a_saved_average() -> None:
    module, source, ema = Module(), GeneratorEMA(decay=0.9), GeneratorEMA(decay=None)
    source.on_train_start(TRAINER, module)
    walk(source, module, [1.0])
    ema.load_state_dict(source.state_dict())
    ema.on_train_start(TRAINER, module)
    walk(ema, module, [3.0])
    ema.on_validation_start(TRAINER, module)
    assert module.generator.weight.tolist() == [3.0] * 3


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_outside_0_1_is_the_users_mistake(decay: float) -> None:
    with pytest.raises(UserError, match="trainer.ema_decay"):
        GeneratorEMA(decay=decay)
