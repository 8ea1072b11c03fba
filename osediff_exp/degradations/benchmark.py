"""How long a degradation takes, over random draws."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from osediff_exp.randomness import numpy_generator

if TYPE_CHECKING:
    from osediff_exp.degradations.base import Degradation, Image


def benchmark_degradation(degradation: Degradation, *, image: Image, num_pairs: int, seed: int) -> dict[str, float]:
    """Return the milliseconds per pair over ``num_pairs`` draws on ``image`` (H, W, 3): ``mean_ms``, ``median_ms``, ``p95_ms``.

    Ten pairs of other draws run first, so that tables and caches are warm. Threads are the caller's business.
    """
    for k in range(10):
        degradation(image, numpy_generator(seed, "benchmark-warmup", k))
    durations = np.empty(num_pairs)
    for k in range(num_pairs):
        rng = numpy_generator(seed, "benchmark", k)
        start = time.perf_counter()
        degradation(image, rng)
        durations[k] = 1e3 * (time.perf_counter() - start)
    mean, median, p95 = durations.mean(), np.median(durations), np.percentile(durations, 95)
    return {"mean_ms": float(mean), "median_ms": float(median), "p95_ms": float(p95)}
