"""Cores on which other processes compute. Several threads share each operation on a CPU, and all wait for the one that has to wait for its
core: a training with two threads took 35 s a step in place of 1.1 beside a job that was pinned to one of two cores (experiments/LOG.md,
2026-11-30)."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch

log = logging.getLogger(__name__)

_STAT = Path("/proc/stat")
_SECONDS = 0.25  # the system counts in hundredths
_IDLE = slice(3, 5)  # of a core's counters (man proc_stat): idle, and waiting for a disk


def warn_of_busy_cores(trainer: pl.Trainer) -> None:
    """Say so where a training in one process on the CPU has more threads than cores for itself."""
    alone = trainer.world_size == 1 and trainer.strategy.root_device.type == "cpu"
    if alone and (said := threads_too_many()) is not None:
        log.warning("%s: %s", *said)


class Crowded(NamedTuple):
    """What is wrong, and what to do."""

    found: str
    remedy: str


def threads_too_many() -> Crowded | None:
    """Return both where torch's threads are more than the cores that are free now, else None; it takes a quarter of a second.

    None also where the system does not say, and with one thread, which waits for nobody.
    """
    threads = torch.get_num_threads()
    if threads == 1 or (before := _counters()) is None:
        return None
    time.sleep(_SECONDS)
    after = _counters()
    assert after is not None
    busy = sum(_share(before[core], after[core]) > 0.5 for core in before if core in after)
    free = len(before) - busy
    if threads <= free or not busy:
        return None
    one = "one of the" if busy == 1 else f"{busy} of the"
    return Crowded(
        f"other processes keep {one} {len(before)} cores busy, and {threads} threads wait for one another there",
        f"OMP_NUM_THREADS={max(free, 1)} may be several times as fast",
    )


def _counters() -> dict[int, list[int]] | None:
    """Return the time counters of each core that this process may use."""
    try:
        lines = [line.split() for line in _STAT.read_text().splitlines()]
        cores = {int(name[3:]): [int(count) for count in counts] for name, *counts in lines if name[:3] == "cpu" and name != "cpu"}
        mine = os.sched_getaffinity(0)
    except (OSError, ValueError, AttributeError):  # another system, or a sandbox that hides it
        return None
    return {core: counts for core, counts in cores.items() if core in mine} or None


def _share(before: list[int], after: list[int]) -> float:
    """Return which share of the time between was not idle."""
    spent = [late - early for early, late in zip(before, after, strict=True)]
    return 1 - sum(spent[_IDLE]) / max(sum(spent), 1)
