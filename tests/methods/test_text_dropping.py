"""Who loses the words is a function of the numbers handed in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from osediff_exp.methods.text_dropping import drop_text

EMBEDS, EMPTY = torch.ones(4, 3, 2), torch.zeros(1, 3, 2)


def dropped(n: Tensor, probability: float) -> list[bool]:
    return [not bool(row.any()) for row in drop_text(EMBEDS[: len(n)], EMPTY, n, probability=probability)]


def test_the_quantile_decides() -> None:
    n = torch.tensor([-2.0, -0.1, 0.1, 2.0])
    assert dropped(n, 0.5) == [True, True, False, False]
    assert dropped(n, 0.02) == [False] * 4
    assert dropped(n, 0.03) == [True, False, False, False]  # the normal distribution's value at -2 is .0228


@pytest.mark.parametrize(("probability", "everybody"), [(0.0, False), (1.0, True)])
def test_nobody_and_everybody(probability: float, everybody: bool) -> None:
    assert dropped(torch.tensor([-8.0, 0.0, 5.0]), probability) == [everybody] * 3


def test_what_is_kept_is_kept_whole() -> None:
    embeds, n = torch.randn(2, 3, 2, requires_grad=True), torch.tensor([1.0, -1.0])
    kept = drop_text(embeds, EMPTY, n, probability=0.5)
    assert torch.equal(kept[0], embeds[0])
    assert torch.equal(kept[1], EMPTY[0])


def test_it_happens_as_often_as_asked() -> None:
    n = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    share = drop_text(torch.ones(len(n), 1, 1), torch.zeros(1, 1, 1), n, probability=0.3).mean()
    assert float(1 - share) == pytest.approx(0.3, abs=0.01)
