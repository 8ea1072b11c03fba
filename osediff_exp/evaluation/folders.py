"""Scoring pairs of files on all cores, with memory for a few of them at a time."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from threadpoolctl import threadpool_limits

from osediff_exp.data.images import to_float
from osediff_exp.data.pairs import to_tensor
from osediff_exp.evaluation.pairing import Pair, Problem, read_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from osediff_exp.evaluation.scoring import Measured, Scorer

    Outcome = Measured | list[Problem]  # what the metrics say, or what is wrong

_MOST_THREADS = 16  # reading files and NumPy's own bookkeeping leave no more to gain


def score_pairs(scorer: Scorer, pairs: Iterable[Pair], *, done: Callable[[], None] = lambda: None) -> list[Problem]:
    """Read and score the pairs in order; ``done`` is called after each. Return what could not be read or compared.

    Where no metric holds a network, several pictures are scored at once, each on one core: the figures are those of one thread, to the bit.
    """
    problems: list[Problem] = []
    with _pictures_at_once(1 if scorer.has_networks else min(torch.get_num_threads(), _MOST_THREADS)) as num_threads:
        for pair, outcome in _in_order(lambda pair: _measure(scorer, pair), pairs, num_threads):
            if isinstance(outcome, list):
                problems += outcome
            else:
                scorer.keep(pair.name, outcome)
            done()
    return problems


def _measure(scorer: Scorer, pair: Pair) -> Outcome:
    images = read_pair(pair)
    if isinstance(images, list):
        return images
    pred, target = (to_tensor(to_float(image)) for image in images)
    return scorer.measure(pred, target)


def _in_order(measure: Callable[[Pair], Outcome], pairs: Iterable[Pair], num_threads: int) -> Iterator[tuple[Pair, Outcome]]:
    """Yield each pair with its outcome in the order of the pairs, computed in threads that run only a little ahead."""
    with ThreadPoolExecutor(num_threads) as pool:
        waiting: deque[tuple[Pair, Future[Outcome]]] = deque()
        for pair in pairs:
            waiting.append((pair, pool.submit(measure, pair)))
            if len(waiting) > 2 * num_threads:
                yield _first(waiting)
        while waiting:
            yield _first(waiting)


def _first(waiting: deque[tuple[Pair, Future[Outcome]]]) -> tuple[Pair, Outcome]:
    pair, outcome = waiting.popleft()
    return pair, outcome.result()


@contextmanager
def _pictures_at_once(num_threads: int) -> Iterator[int]:
    """Give each of several pictures one core: the libraries' own threads would only get in each other's way."""
    if num_threads == 1:
        yield 1
        return
    before = torch.get_num_threads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            yield num_threads
        finally:
            torch.set_num_threads(before)
