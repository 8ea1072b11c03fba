"""How far a job over many files is: a rich bar on a terminal, a line now and then elsewhere (a log file, CI, a cluster)."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import TextColumn

from osediff_exp.bars import Pace, bar


class FileProgress:
    """Counts finished files; use it as a context.

    Args:
        total: files in all.
        label: what is done to them, e.g. "restoring".
        console: where it is shown.
        seconds_between_lines: how often a line is printed where there is no terminal.
    """

    def __init__(self, *, total: int, label: str, console: Console, seconds_between_lines: float = 15.0) -> None:
        self.total, self.label, self.console, self.seconds_between_lines = total, label, console, seconds_between_lines
        self._done, self._name = 0, ""
        self._last_line = time.monotonic()
        self._pace = Pace()
        self._bar = bar(console, TextColumn("{task.fields[name]}"), disable=not console.is_terminal)
        self._task = self._bar.add_task(label, total=total, name="")

    def __enter__(self) -> FileProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._bar.stop()

    def start(self, name: str) -> None:
        """Show which file is being worked on."""
        self._name = name
        self._bar.update(self._task, name=name)

    def step(self, done: int, steps: int) -> None:
        """Show how far a sampler is within the file."""
        if steps > 1:
            self._bar.update(self._task, name=f"{self._name}, step {done}/{steps}")
            self._tell(f", {self._name}, step {done}/{steps}")

    def advance(self, files: int = 1) -> None:
        """Count a file, or several."""
        self._done += files
        self._bar.update(self._task, completed=self._done)
        self._tell("")

    def _tell(self, more: str) -> None:
        """Print a line where there is no terminal, now and then."""
        if not self.console.is_terminal and time.monotonic() - self._last_line >= self.seconds_between_lines:
            self._last_line = time.monotonic()
            self.console.print(f"{self.label}: {self._done}/{self.total}{more}  {self._pace(self._done, self.total)}", highlight=False)
