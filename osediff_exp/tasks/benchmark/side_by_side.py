"""Two ways of doing one thing, measured in turns: what a busy machine does to one of them it does to the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch


class Pair(NamedTuple):
    """Medians over the rounds: seconds of the plain way and of ours, and plain / ours (above 1: ours is faster)."""

    plain: float
    ours: float
    ratio: float


def seconds_of(work: Callable[[], object]) -> float:
    """Return what ``work`` takes: on a CPU this process's processor time (waiting for others does not count), on a GPU the clock's time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        return time.perf_counter() - started
    started = time.process_time()
    work()
    return time.process_time() - started


def side_by_side(plain: Callable[[], object], ours: Callable[[], object], *, rounds: int) -> Pair:
    """Measure A B A B ..., after one round that does not count; the ratio is the median of the rounds' ratios."""
    plain()
    ours()
    times = [(seconds_of(plain), seconds_of(ours)) for _ in range(rounds)]
    medians = [statistics.median(column) for column in zip(*times, strict=True)]
    return Pair(medians[0], medians[1], statistics.median(first / second for first, second in times))
