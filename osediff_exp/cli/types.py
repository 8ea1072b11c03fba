"""Do the values fit the types of their defaults?"""

from __future__ import annotations

import math
from typing import Any

from osediff_exp.cli.schema import nullable_types

MISSING = "???"
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list", dict: "a group of keys"}


def type_problem(key: str, value: Any, default: Any) -> str | None:
    """Return what is wrong with ``value`` beside the default the files declare for ``key``, or None.

    A whole number fits a float. Null fits a text, a list or a group of keys; it fits a number only where the schema says so. A null or
    mandatory (``???``) default takes the types the schema lists for the key, else anything.
    """
    if value == MISSING:
        return None
    if not _finite(value):
        return f"{key}={_show(value)}: a number must be finite"
    expected = _expected(key, default)
    if expected is None or _fits(key, value, expected):
        return _element_problem(key, value, default) if isinstance(value, list) and isinstance(default, list) else None
    wanted = " or ".join(_NAMES[kind] for kind in expected)
    shown = "" if default is None or default == MISSING or isinstance(default, dict | list) else f" (default {_show(default)})"
    hint = " (quote it to make it a text)" if str in expected and isinstance(value, int | float) else ""
    return f"{key}={_show(value)}: expected {wanted}{shown}, got {_describe(value)}{hint}"


def _expected(key: str, default: Any) -> tuple[type, ...] | None:
    if default is None or default == MISSING:
        return nullable_types(key)
    return (type(default),) if type(default) in _NAMES else None


def _fits(key: str, value: Any, expected: tuple[type, ...]) -> bool:
    if value is None:
        return nullable_types(key) is not None or not set(expected) <= {int, float, bool}
    return type(value) in expected or (type(value) is int and float in expected)


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _element_problem(key: str, value: list[Any], default: list[Any]) -> str | None:
    kinds = {type(item) for item in default}
    if not kinds or not kinds <= {bool, int, float, str}:
        return None
    misfits = [item for item in value if type(item) not in kinds and not _counts_as_float(item, kinds) and not _is_reference(item)]
    if not misfits:
        return None
    return f"{key}={_show(value)}: expected a list like {_show(default)}, but {_show(misfits[0])} is {_describe(misfits[0])}"


def _counts_as_float(item: Any, kinds: set[type]) -> bool:
    return type(item) is int and float in kinds


def _is_reference(item: Any) -> bool:
    return isinstance(item, str) and "${" in item


def _describe(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return f"the number {value}"
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    text = str(value).replace("'", "")
    return text if len(text) <= 60 else text[:57] + "..."
