"""Bars and plain lines: speed and time left."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from osediff_exp import bars
from osediff_exp.bars import Pace, bar, clock
from osediff_exp.restoration.progress import FileProgress


def test_clock() -> None:
    assert [clock(seconds) for seconds in (0, 59.6, 125, 3723)] == ["0:00", "1:00", "2:05", "1:02:03"]


def test_a_pace_counts_from_where_the_work_began(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(bars.time, "monotonic", lambda: now)
    pace = Pace(done=10)
    assert pace(10, 40) == ""
    now = 104.0
    assert pace(20, 40) == "2.5/s, 0:08 left"
    assert pace(20, None) == "2.5/s"


def test_a_terminal_sees_done_speed_and_time_left() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with bar(console) as shown:
        task = shown.add_task("restoring", total=4)
        for _ in range(3):
            time.sleep(0.002)
            shown.advance(task)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "restoring" in text
    assert "3/4" in text
    assert "/s" in text


def test_elsewhere_a_line_tells_the_same() -> None:
    console = Console(file=io.StringIO(), width=80)
    with FileProgress(total=3, label="scoring", console=console, seconds_between_lines=0.0) as progress:
        time.sleep(0.001)
        progress.advance(2)
    line = console.file.getvalue().strip()  # type: ignore[attr-defined]
    assert line.startswith("scoring: 2/3  ")
    assert line.endswith("left")
