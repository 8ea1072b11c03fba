"""Poisson variables whose means take few values, sampled by inverting each distribution function with a table.

An 8-bit picture has at most 256 means. ``Generator.poisson`` costs about 40 ns a pixel, the table about a third, and both are
exact up to the resolution of their random numbers: 2^-32 here.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import pdtr

_BITS = 11  # buckets of the guide table, per mean: 2048 answer at once where the distribution function has no step inside the bucket
_NUM_LEVELS = 256


class PoissonTable:
    """Samples Poisson(level / 255 * peak) for 8-bit levels; ``peak`` is the mean at level 255, at most 256."""

    def __init__(self, peak: int) -> None:
        means = np.arange(_NUM_LEVELS) / 255.0 * peak
        self.num_values = int(peak + 12.0 * np.sqrt(peak) + 12.0)
        cdf = pdtr(np.arange(self.num_values), means[:, None])
        steps = np.minimum(np.rint(cdf * 2.0**32), 2.0**32).astype(np.uint64)
        # One sorted list for all levels: level l owns the interval [l 2^32, (l + 1) 2^32].
        self._steps = (steps + (np.arange(_NUM_LEVELS, dtype=np.uint64) << np.uint64(32))[:, None]).ravel()
        edges = np.arange(_NUM_LEVELS << _BITS, dtype=np.uint64) << np.uint64(32 - _BITS)
        first = self._search(edges)
        last = self._search(edges + np.uint64((1 << (32 - _BITS)) - 1))
        self._guide = np.where(first == last, first, -1).astype(np.int16)

    def _search(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        """Return the value of each key = level 2^32 + u: how many steps of that level's distribution function lie at or below u."""
        return np.searchsorted(self._steps, keys, side="right") - (keys >> np.uint64(32)).astype(np.int64) * self.num_values

    def sample(self, levels: npt.NDArray[np.uint8], rng: np.random.Generator) -> npt.NDArray[np.int16]:
        """Return one Poisson count per level, same shape."""
        u = rng.integers(0, 2**32, levels.shape, dtype=np.uint32)
        counts = self._guide.take((levels.astype(np.uint32) << np.uint32(_BITS)) | (u >> np.uint32(32 - _BITS)))
        unsure = np.nonzero(counts < 0)
        counts[unsure] = self._search((levels[unsure].astype(np.uint64) << np.uint64(32)) | u[unsure])
        return counts


@lru_cache(maxsize=9)
def poisson_table(peak: int) -> PoissonTable:
    """Return the table of a peak; the peaks in use are the nine powers of two up to 256 (about 1.5 MB each)."""
    return PoissonTable(peak)
