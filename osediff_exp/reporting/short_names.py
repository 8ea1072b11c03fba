"""The shortest name that still names one thing only."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Path = tuple[str, ...]


def shortest_endings(wanted: Sequence[Path], others: Iterable[Path] = ()) -> list[Path]:
    """Return for each path its shortest ending that ends no other path of both lists, the whole path where there is none."""
    count = Counter(path[start:] for path in {*wanted, *others} for start in range(len(path)))
    return [next((path[-size:] for size in range(1, len(path)) if count[path[-size:]] == 1), path) for path in wanted]


def short_keys(wanted: Sequence[str], others: Iterable[str] = ()) -> dict[str, str]:
    """Return config key -> its shortest ending ("loss.terms.vsd.guidance": "guidance") that ends no other key of both lists."""
    endings = shortest_endings([_parts(key) for key in wanted], map(_parts, others))
    return {key: _last_parts(key, len(ending)) for key, ending in zip(wanted, endings, strict=True)}


def short_paths(values: Sequence[str]) -> dict[str, str]:
    """Return a setting's values that are paths -> their shortest endings ("runs/a/1_x": "1_x"), without quotes; others are left out."""
    wanted = [value for value in dict.fromkeys(values) if "/" in value and value[0] not in "[{"]
    parts = [tuple(value.strip("'\"").rstrip("/").split("/")) for value in wanted]
    return {value: "/".join(ending) for value, ending in zip(wanted, shortest_endings(parts), strict=True)}


def _parts(key: str) -> Path:
    return tuple(re.split(r"[./]", key))


def _last_parts(key: str, size: int) -> str:
    return "".join(re.split(r"([./])", key)[-(2 * size - 1) :])
