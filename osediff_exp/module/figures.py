"""The figures of a step: collected over its micro-batches, averaged over samples and ranks, with the speed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor


class StepFigures:
    """Collects detached figures, scalars or (B,), over the micro-batches of a step.

    NaN marks samples that a figure does not concern: they do not count in its mean.
    """

    def __init__(self) -> None:
        self._columns: dict[str, list[Tensor]] = {}

    def add(self, logs: dict[str, Tensor]) -> None:
        for key, value in logs.items():
            self._columns.setdefault(key, []).append(value.float().reshape(-1))

    def clear(self) -> None:
        self._columns = {}

    def means(self, *, device: torch.device, gather: Callable[[Tensor], Tensor] | None = None) -> dict[str, float]:
        """Return each figure's mean over samples and ranks; figures that concern no sample are left out.

        Args:
            device: where ranks meet.
            gather: brings together what the ranks hold (each as many figures of the same keys); None for one process.
        """
        columns = {key: torch.cat([value.to(device) for value in values]) for key, values in self._columns.items()}
        means = {key: float((gather(column) if gather else column).nanmean()) for key, column in columns.items()}
        return {key: mean for key, mean in means.items() if mean == mean}


class Speed:
    """Steps per second since :meth:`restart`."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, steps: int) -> None:
        """Count from here: ``steps`` are done."""
        self._steps, self._since = steps, time.perf_counter()

    def lap(self, steps: int) -> float:
        """Return the steps per second since the last restart or lap, ``steps`` being done now."""
        done, elapsed = steps - self._steps, time.perf_counter() - self._since
        self.restart(steps)
        return done / elapsed


class Waiting:
    """Seconds that steps waited for their data: from the end of a batch to the beginning of the next."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._seconds, self._steps = 0.0, 0

    def leave(self) -> None:
        """A batch is done, or what was done between two batches (a validation) is."""
        self._since = time.perf_counter()

    def enter(self) -> None:
        """The next batch is there."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
        self._since = None

    def lap(self, steps: int) -> float:
        """Return the seconds per step since the last lap, ``steps`` being done now."""
        seconds, done = self._seconds, max(steps - self._steps, 1)
        self._seconds, self._steps = 0.0, steps
        return seconds / done


class Stopwatch:
    """Seconds spent on pictures, which come in batches.

    Attributes:
        pictures, seconds: so far.
        laps: seconds per picture of each batch.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was measured."""
        self.pictures, self.seconds = 0, 0.0
        self.laps: list[float] = []

    def start(self) -> None:
        """Begin with some pictures."""
        self._since = time.perf_counter()

    def stop(self, pictures: int) -> None:
        """They are finished (what a GPU was asked for must have been waited for)."""
        seconds = time.perf_counter() - self._since
        self.seconds += seconds
        self.pictures += pictures
        self.laps.append(seconds / pictures)

    @property
    def per_picture(self) -> float | None:
        """Mean seconds per picture; None before the first one."""
        return self.seconds / self.pictures if self.pictures else None

    @property
    def median(self) -> float | None:
        """Median over the batches of seconds per picture: the first one's, and other work on the machine, count little."""
        return statistics.median(self.laps) if self.laps else None
