"""What one key takes: its types, and which of their values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from osediff_exp.errors import nearest

MOST = 2**31 - 1
"""The largest whole number of a key that says no other."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The values of a key.

    Attributes:
        types: what it may be; a whole number also fits a number.
        null: whether null is a value.
        low, high: bounds of a number; they belong to the range unless ``open``.
        open: which bounds do not belong to the range: "(", ")", "()" or "".
        multiple: what a whole number must be a multiple of.
        words: the texts that it may be; empty: any.
        pattern: regular expression of texts beside ``words``.
        empty: whether a text may be empty.
        items: the rule of a list's items, or of a dictionary's values.
        length: least and largest length of a list.
        ascending: whether a list's numbers may not fall.
    """

    types: tuple[type, ...]
    null: bool = False
    low: float | None = None
    high: float | None = None
    open: str = ""
    multiple: int = 1
    words: tuple[str, ...] = ()
    pattern: str | None = None
    empty: bool = True
    items: Rule | None = None
    length: tuple[int, int] = (0, MOST)
    ascending: bool = False

    def problem(self, key: str, value: Any) -> str | None:
        """Return what is wrong with a value of the right type, with the nearest one that is valid, or None."""
        if isinstance(value, str):
            return self._text_problem(key, value)
        if isinstance(value, list):
            return self._list_problem(key, value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._number_problem(key, value)
        return None

    def _text_problem(self, key: str, value: str) -> str | None:
        if "\0" in value:
            return f"{key} holds a null byte: give a text without one"
        if not self.empty and not value.strip():
            return f"{key} is empty: give a value{', or null' if self.null else ''}"
        if not self.words or value in self.words or (self.pattern is not None and re.fullmatch(self.pattern, value)):
            return None
        return f"{key}={value} is none of {', '.join(self.words)}.{nearest(value, self.words)}"

    def _number_problem(self, key: str, value: float) -> str | None:
        if self._holds(value):
            return None
        fitting = self._nearest(value)
        advice = "" if fitting is None else f"; the nearest is {fitting}"
        return f"{key}={value} is out of range: give {self._range()}{advice}"

    def _holds(self, value: float) -> bool:
        above = self.low is None or value > self.low or (value == self.low and "(" not in self.open)
        below = self.high is None or value < self.high or (value == self.high and ")" not in self.open)
        return above and below and (self.multiple == 1 or value % self.multiple == 0)

    def _range(self) -> str:
        kind = "a whole number" if float not in self.types else "a number"
        kind = kind if self.multiple == 1 else f"a multiple of {self.multiple}"
        low = None if self.low is None else f"{'above' if '(' in self.open else 'from'} {self.low:g}"
        high = None if self.high is None or self.high >= MOST else f"{'below' if ')' in self.open else 'to'} {self.high:g}"
        if low is not None and high is None:
            return f"{kind} {'above' if '(' in self.open else 'of at least'} {self.low:g}"
        return " ".join(part for part in (kind, low, high) if part)

    def _nearest(self, value: float) -> float | None:
        """Return the valid number nearest to ``value``; None where an open bound has none."""
        step = self.multiple
        closest: float = max(value, self.low) if self.low is not None else value
        closest = min(closest, self.high) if self.high is not None else closest
        if step > 1:
            closest = round(closest / step) * step
            closest = closest if self.low is None or closest >= self.low else closest + step
        return closest if self._holds(closest) else None

    def _list_problem(self, key: str, value: list[Any]) -> str | None:
        least, most = self.length
        if not least <= len(value) <= most:
            number = f"{least}" if least == most else f"at least {least}"
            return f"{key}={value} has {len(value)} entries: give {number}"
        for item in value if self.items is not None else ():
            assert self.items is not None
            if not fits(item, self.items.types):
                return f"{key}={value}: {item} is not {kind_of(self.items.types)}"
            if problem := self.items.problem(key, item):
                return problem
        if self.ascending and any(isinstance(item, str) for item in value):
            return None
        if self.ascending and list(value) != sorted(value):
            return f"{key}={value} falls: write the lower end first, {sorted(value)}"
        return None


NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a group of keys"}


def kind_of(types: tuple[type, ...]) -> str:
    """Return the types in words."""
    return " or ".join(NAMES[kind] for kind in types)


def fits(value: Any, types: tuple[type, ...]) -> bool:
    """Tell whether ``value`` has one of the types; a whole number is also a number, and a reference (``${...}``) is anything."""
    return type(value) in types or (type(value) is int and float in types) or (isinstance(value, str) and "${" in value)


# ---- the kinds that keys are of


def whole(low: int = 0, high: int = MOST, *, multiple: int = 1, null: bool = False) -> Rule:
    """A whole number in [low, high]."""
    return Rule(types=(int,), low=low, high=high, multiple=multiple, null=null)


def number(low: float | None = 0.0, high: float | None = None, *, open: str = "", null: bool = False) -> Rule:
    """A finite number in the range."""
    return Rule(types=(float,), low=low, high=high, open=open, null=null)


def probability() -> Rule:
    """A number in [0, 1]."""
    return number(0.0, 1.0)


def flag() -> Rule:
    """True or false."""
    return Rule(types=(bool,))


def word(*words: str, null: bool = False, pattern: str | None = None) -> Rule:
    """One of a few texts."""
    return Rule(types=(str,), words=words, null=null, pattern=pattern)


def text(*, null: bool = False, empty: bool = True) -> Rule:
    """Any text."""
    return Rule(types=(str,), null=null, empty=empty)


def path(*, null: bool = False) -> Rule:
    """A path: a text that is not empty."""
    return text(null=null, empty=False)


def several(items: Rule, least: int = 0, most: int = MOST, *, null: bool = False, ascending: bool = False) -> Rule:
    """A list of ``least`` to ``most`` items."""
    return Rule(types=(list,), items=items, length=(least, most), null=null, ascending=ascending)


def span(low: float, high: float | None = None, *, open: str = "") -> Rule:
    """A range [low end, high end] within the bounds."""
    return several(number(low, high, open=open), 2, 2, ascending=True)


def group(*, null: bool = False) -> Rule:
    """A group of keys."""
    return Rule(types=(dict,), null=null)


def either(*types: type, null: bool = False, low: float | None = None, items: Rule | None = None, empty: bool = False) -> Rule:
    """One of several types; ``low`` bounds its numbers, ``items`` its lists."""
    return Rule(types=types, null=null, low=low, items=items, empty=empty)
