"""The one exception for mistakes of the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


class UserError(Exception):
    """A mistake the user can mend; its message is one line: what is wrong, where, what to do."""

    def __str__(self) -> str:
        return shown(super().__str__())  # a value of the user's may hold a newline


class Incomplete(UserError):  # noqa: N818 - a state of the job: its figures count
    """A task did all it could but not its whole job: its figures are kept, the message says what is missing, the exit status is not 0.

    Args:
        message: one line: what is missing, where the details are, what to do.
        figures: what the task would have returned.
    """

    def __init__(self, message: str, figures: Mapping[str, float | int | str | None]) -> None:
        super().__init__(message)
        self.figures = dict(figures)


def shown(path: object) -> str:
    """Return a path on one line of printable signs: a newline in a file's name, or bytes that are no text, would spoil a list of names."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in str(path))


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the valid name closest to ``name``, or an empty string."""
    matches = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" Did you mean '{matches[0]}'?" if matches else ""
