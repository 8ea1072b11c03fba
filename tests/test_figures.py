"""How long steps wait for their data."""

from __future__ import annotations

import pytest

from osediff_exp.module import figures
from osediff_exp.module.figures import Waiting


def test_waiting_is_what_lies_between_batches_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def passed(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(figures.time, "perf_counter", lambda: now)
    waiting = Waiting()
    waiting.lap(10)  # resumed after ten steps
    for wait in (0.5, 1.5):
        waiting.enter()
        passed(7)  # the step itself
        waiting.leave()
        passed(wait)
    passed(100)  # a validation
    waiting.leave()
    passed(2)
    waiting.enter()
    assert waiting.lap(12) == pytest.approx((0.5 + 2) / 2)
    assert waiting.lap(13) == 0
