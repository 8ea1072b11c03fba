"""Checks of the figures a user writes into a degradation's YAML; each mistake is one line that names the key."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from osediff_exp.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

Range = tuple[float, float]


def _ends(key: str, value: Iterable[float]) -> tuple[float, ...]:
    if not isinstance(value, Iterable) or isinstance(value, str):
        raise UserError(f"degradation: {key}={value} is not a range; write [low, high]")
    return tuple(float(end) for end in value)


def checked_range(key: str, value: Iterable[float], low: float = 0.0, high: float = math.inf) -> Range:
    """Return ``value`` as (low end, high end); both ends must lie in [low, high] and be in order."""
    ends = _ends(key, value)
    if len(ends) != 2 or not low <= ends[0] <= ends[1] <= high:
        raise UserError(f"degradation: {key}={list(ends)} is not a range; write [low, high] with {low:g} <= low <= high <= {high:g}")
    return ends[0], ends[1]


def checked_around_one(key: str, value: Iterable[float]) -> Range:
    """Return ``value`` as (low end, high end) with 0 < low <= 1 <= high: its two sides are drawn apart."""
    ends = _ends(key, value)
    if len(ends) != 2 or not 0.0 < ends[0] <= 1.0 <= ends[1] < math.inf:
        raise UserError(f"degradation: {key}={list(ends)} must surround 1; write [low, high] with 0 < low <= 1 <= high")
    return ends[0], ends[1]


def checked_probability(key: str, value: float) -> float:
    """Return ``value`` if it lies in [0, 1]."""
    if not 0.0 <= value <= 1.0:
        raise UserError(f"degradation: {key}={value:g} is not a probability; write a number from 0 to 1")
    return float(value)


def checked_choice(key: str, value: Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    """Return the probabilities of ``names`` in that order, missing ones as 0; they must sum to 1."""
    for name in value:
        if name not in names:
            raise UserError(f"degradation: {key} has no choice '{name}'; choose among {', '.join(names)}.{nearest(name, names)}")
    probabilities = {name: checked_probability(f"{key}.{name}", value.get(name, 0.0)) for name in names}
    if abs(sum(probabilities.values()) - 1.0) > 1e-6:
        raise UserError(f"degradation: the probabilities of {key} sum to {sum(probabilities.values()):g}; make them sum to 1")
    return probabilities


def checked_sizes(key: str, value: Iterable[int]) -> tuple[int, ...]:
    """Return kernel sizes (odd, positive)."""
    sizes = tuple(int(size) for size in value)
    if not sizes or any(size < 1 or size % 2 == 0 for size in sizes):
        raise UserError(f"degradation: {key}={list(sizes)} must be a list of odd positive kernel sizes, for example [7, 9, 11]")
    return sizes
