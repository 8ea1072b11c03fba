"""The union over ranks is the same consecutive batch for any number of ranks."""

from __future__ import annotations

from itertools import chain, islice

import pytest

from osediff_exp.data.sampler import GlobalBatchSampler, shard


def micro_batches(ranks: int, *, batch_size: int, count: int, first: int = 0) -> list[list[int]]:
    """Return ``count`` micro-batches, each the ranks' parts one after the other."""
    samplers = [GlobalBatchSampler(batch_size=batch_size, rank=rank, world_size=ranks, first=first) for rank in range(ranks)]
    return [[i for part in parts for i in part] for parts in zip(*(islice(sampler, count) for sampler in samplers), strict=True)]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 12])
def test_any_number_of_ranks_shares_the_same_batches(ranks: int) -> None:
    expected = [list(range(start, start + 12)) for start in range(0, 60, 12)]
    assert micro_batches(ranks, batch_size=12 // ranks, count=5) == expected


def test_accumulation_covers_the_same_samples_as_a_large_batch() -> None:
    small = micro_batches(2, batch_size=2, count=6)
    assert list(chain(*small)) == list(chain(*micro_batches(2, batch_size=4, count=3)))


def test_starting_later_continues_the_walk() -> None:
    whole = micro_batches(2, batch_size=3, count=10)
    assert micro_batches(2, batch_size=3, count=6, first=4 * 6) == whole[4:]


@pytest.mark.parametrize(("length", "ranks"), [(10, 1), (10, 3), (2, 4), (0, 2)])
def test_shards_cover_everything_once(length: int, ranks: int) -> None:
    assert sorted(k for rank in range(ranks) for k in shard(length, rank=rank, world_size=ranks)) == list(range(length))
