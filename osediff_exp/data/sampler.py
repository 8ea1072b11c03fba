"""Which samples a rank sees: an endless walk through the sample numbers 0, 1, 2, ... in global batches.

With R ranks, b samples per rank and micro-batch, and A micro-batches per optimizer step, one step covers G = A R b consecutive samples.
Micro-batch m of a step covers R b of them, and rank r takes the r-th run of b:

    index(step, m, r, p) = first + step * G + m * R b + r * b + p,    0 <= p < b

So the union over ranks is the same batch however many ranks share it, and no sample is seen twice.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

from torch.utils.data import Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator


class GlobalBatchSampler(Sampler[list[int]]):
    """Endless batches of sample indices for one rank.

    Args:
        batch_size: b, samples per rank and micro-batch.
        rank, world_size: r and R.
        first: the sample at which the next iteration starts; may be set between iterations (resuming).
    """

    def __init__(self, *, batch_size: int, rank: int = 0, world_size: int = 1, first: int = 0) -> None:
        if not (batch_size > 0 and 0 <= rank < world_size and first >= 0):
            raise ValueError(f"batch_size {batch_size}, rank {rank} of {world_size}, first {first} do not make a stream")
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size
        self.first = first

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of ``batch_size`` indices for ever; A of them make one optimizer step."""
        for start in count(self.first + self.rank * self.batch_size, self.world_size * self.batch_size):
            yield list(range(start, start + self.batch_size))


def shard(length: int, *, rank: int, world_size: int) -> range:
    """Return rank r's share r, r + R, r + 2R, ... of ``length`` validation pictures: no padding, so a mean has no duplicates in it."""
    return range(rank, length, world_size)
