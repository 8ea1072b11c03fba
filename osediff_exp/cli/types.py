"""Is a value one that its key takes?"""

from __future__ import annotations

import math
from typing import Any

from osediff_exp.cli.schema import rule_for
from osediff_exp.cli.schema.rules import NAMES, kind_of

MISSING = "???"


def value_problem(key: str, value: Any, default: Any, task: str = "", *, ruled: bool = True) -> str | None:
    """Return what is wrong with ``value`` beside the default the files declare for ``key``, or None.

    What the schema says of the key counts. For a key that it does not know, or that is not ``ruled`` by it, the default's type does: a
    whole number fits a float, and null fits a text, a list or a group of keys; a null or mandatory (``???``) default takes anything.
    """
    if value == MISSING:
        return None
    if not _finite(value):
        return f"{key}={_show(value)}: a number must be finite"
    rule = rule_for(key, task) if ruled else None
    if rule is None:
        return _type_problem(key, value, default, _types_of(default), null=type(default) not in (int, float, bool)) or _element_problem(
            key, value, default
        )
    return _type_problem(key, value, default, rule.types, null=rule.null) or (None if value is None else rule.problem(key, value))


def _types_of(default: Any) -> tuple[type, ...] | None:
    return (type(default),) if type(default) in NAMES and default != MISSING else None


def _type_problem(key: str, value: Any, default: Any, expected: tuple[type, ...] | None, *, null: bool) -> str | None:
    if expected is None or _fits(value, expected, null):
        return None
    shown = "" if default is None or default == MISSING or isinstance(default, dict | list) else f" (default {_show(default)})"
    hint = " (quote it to make it a text)" if str in expected and isinstance(value, int | float) else ""
    return f"{key}={_show(value)}: expected {kind_of(expected)}{shown}, got {_describe(value)}{hint}"


def _fits(value: Any, expected: tuple[type, ...], null: bool) -> bool:
    if value is None:
        return null
    return type(value) in expected or (type(value) is int and float in expected)


def _finite(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _element_problem(key: str, value: Any, default: Any) -> str | None:
    if not isinstance(value, list) or not isinstance(default, list):
        return None
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
    return "null" if value is None else NAMES.get(type(value), type(value).__name__)


def _show(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    text = str(value).replace("'", "")
    return text if len(text) <= 60 else text[:57] + "..."
