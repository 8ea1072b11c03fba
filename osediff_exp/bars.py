"""How far a long task is: a bar with speed and time left on a terminal, a plain line now and then elsewhere (a log, CI, a cluster)."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

UNBOUNDED_STEPS = 10**9
"""``max_steps`` of a training that another limit ends (``trainer.budget_minutes``): no total that a bar could show."""


class SpeedColumn(ProgressColumn):
    """How many are done a second, of late; empty before the first."""

    def render(self, task: Task) -> Text:
        """Return "2.5/s"."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g}/s" if speed else "")


def bar(console: Console, *more: ProgressColumn, disable: bool = False) -> Progress:
    """Return rich's bar with what it is about, done of all, speed, time taken and left, and the columns ``more``."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        SpeedColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, *more, console=console, disable=disable)


class Pace:
    """Speed and time left since work began, for plain lines.

    Args:
        done: what had been done before.
    """

    def __init__(self, done: int = 0) -> None:
        self._before, self._since = done, time.monotonic()

    def __call__(self, done: int, total: int | None) -> str:
        """Return "2.5/s, 0:12 left", as much of it as is known."""
        elapsed = time.monotonic() - self._since
        if done <= self._before or elapsed <= 0:
            return ""
        speed = (done - self._before) / elapsed
        left = f", {clock((total - done) / speed)} left" if total is not None else ""
        return f"{speed:.3g}/s{left}"


def clock(seconds: float) -> str:
    """Return "1:02:03", or "2:03" under an hour."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
