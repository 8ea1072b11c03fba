"""What the arms of a sweep are called, and in what their configs differ."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from osediff_exp.errors import nearest
from osediff_exp.reporting.short_names import short_keys, short_paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from osediff_exp.reporting.runs import Run

ABSENT = "-"
"""How a setting is written that an arm's configuration does not have."""

CHECKPOINTS = ("checkpoint", "restorers")
"""Keys of an evaluation that say which networks it restores with."""

_MISSING = object()


def sets(override: str, *keys: str) -> bool:
    """Tell whether an override sets one of the keys."""
    return override.lstrip("+").partition("=")[0] in keys


def differing_overrides(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """Return, run by run, the overrides that not all runs share, without what only Hydra reads in them: plus signs, and the group of an
    option in another place (``degradation@val_degradation=light``)."""
    shared = set.intersection(*(set(run.overrides) for run in runs)) if len(runs) > 1 else set()
    return [tuple(re.sub(r"^\+*([^=@]*@(?=[^=]*=))?", "", text) for text in run.overrides if text not in shared) for run in runs]


def arm_labels(runs: Sequence[Run], names: Mapping[str, str]) -> list[str]:
    """Return one distinct label per run: its differing overrides, or the human names given for them.

    ``names`` maps an override ("lambda2=0"), all differing ones of an arm joined by ", ", or a key ("generator.timestep": "T" makes
    "T = 200") to what people call it; the longest that fits wins. Other keys are cut to the part that names them among all keys of the
    configurations, and a value that is a path to the ending that names it. An arm that differs in nothing is called "default", a single
    arm by its overrides or, without any, by its folder.
    One of several restorers of an evaluation is called by its own name, behind what its evaluation differs in from others.
    An arm of one of several sweeps is called as in a report of that sweep alone, where no other sweep has an arm of that name.
    """
    labels = _labels(runs, names)
    own = {place: label for places in _sweeps(runs) for place, label in zip(places, _labels([runs[i] for i in places], names), strict=True)}
    count = Counter(own.values())
    return _told_apart(runs, [own[i] if i in own and count[own[i]] == 1 else label for i, label in enumerate(labels)])


def _sweeps(runs: Sequence[Run]) -> list[list[int]]:
    """Return the places of each given folder's runs, for the folders of several that hold more than one."""
    sources = dict.fromkeys(run.source for run in runs if run.source)
    places = [[place for place, run in enumerate(runs) if run.source == source] for source in sources]
    return [found for found in places if len(found) > 1]


def _labels(runs: Sequence[Run], names: Mapping[str, str]) -> list[str]:
    known = {key.lstrip("+"): str(value) for key, value in names.items()}
    arms = differing_overrides(runs)
    short = short_keys(_keys(arms), (key for run in runs for key in flatten(run.config) if not says_nothing(key)))
    paths = {key: short_paths([text.partition("=")[2] for arm in arms for text in arm if text.startswith(f"{key}=")]) for key in short}
    labels = []
    for run, differing in zip(runs, arms, strict=True):
        # A restorer's name says already which of the named checkpoints it is.
        overrides = tuple(text for text in differing if not sets(text, *CHECKPOINTS)) if run.restorer else differing
        fallback = "default" if len(runs) > 1 and run.overrides else run.name
        label = known.get(", ".join(overrides)) or ", ".join(_named(text, known, short, paths) for text in overrides)
        if run.restorer:
            labels.append(": ".join(filter(None, [label, known.get(run.restorer, run.restorer)])))
        else:
            labels.append(label or fallback)
    return labels


def _keys(arms: Sequence[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(text.partition("=")[0] for arm in arms for text in arm))


def _named(override: str, known: Mapping[str, str], short: Mapping[str, str], paths: Mapping[str, Mapping[str, str]]) -> str:
    key, sign, value = override.partition("=")
    if override in known or not sign:
        return known.get(override, override)
    value = paths[key].get(value, value)
    return f"{known[key]} = {value}" if key in known else f"{short[key]}={value}"


def _told_apart(runs: Sequence[Run], labels: Sequence[str]) -> list[str]:
    """Add to equal labels the given folder that holds the run, or the run's own where that is not enough."""
    count = Counter(labels)
    within = Counter((label, run.source) for run, label in zip(runs, labels, strict=True))
    places = [run.source if run.source and within[label, run.source] == 1 else run.name for run, label in zip(runs, labels, strict=True)]
    return [label if count[label] == 1 else f"{label} ({place})" for label, place in zip(labels, places, strict=True)]


def unused_names(runs: Sequence[Run], names: Mapping[str, str]) -> list[str]:
    """Return one line per entry of ``names`` that matches no arm, with the nearest override or key that does exist."""
    arms = differing_overrides(runs)
    within = [arm for places in _sweeps(runs) for arm in differing_overrides([runs[place] for place in places])]
    overrides = {text for arm in arms for text in arm} | {", ".join(arm) for arm in [*arms, *within]}
    keys = {*_keys(arms)}
    unknown = [key for key in names if key.lstrip("+") not in overrides | keys | {run.restorer for run in runs}]
    return [
        f"report.labels: '{key}' is the override of no arm.{nearest(key, sorted((overrides if '=' in key else keys) - {''}))}"
        for key in unknown
    ]


def differing_config(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Return config key ("loss.weight") -> its value in every run, for the keys in which the runs differ ("-": absent).

    Left out: what :func:`says_nothing` about a result, and keys whose value names the run's own folder, which differ in every sweep.
    """
    flat = [flatten(run.config) for run in runs]
    keys = dict.fromkeys(key for config in flat for key in config if not says_nothing(key))
    table = {}
    for key in keys:
        values = [config.get(key, _MISSING) if run.config else None for run, config in zip(runs, flat, strict=True)]
        texts = ["" if value is None and not run.config else _text(value) for run, value in zip(runs, values, strict=True)]
        present = {text for run, text in zip(runs, texts, strict=True) if run.config}
        own_folder = all(names_own_folder(run, text) for run, text in zip(runs, texts, strict=True) if run.config)
        if len(present) > 1 and not own_folder:
            table[key] = texts
    return table


def in_short(table: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return ``table`` (of :func:`differing_config`) with a part that some arms lack ("loss.terms.gan") as one line, settings counted."""
    short: dict[str, list[str]] = {}
    for key in table:
        parts = key.split(".")
        nodes = (".".join(parts[:length]) for length in range(1, len(parts)))
        node = next((node for node in nodes if _comes_as_one(table, node)), "")
        if node:
            below = [values for other, values in table.items() if other.startswith(f"{node}.")]
            short[node] = [f"{len(below)} settings" if text != ABSENT else ABSENT for text in below[0]]
        else:
            short[key] = table[key]
    return short


def _comes_as_one(table: Mapping[str, list[str]], node: str) -> bool:
    """Whether arms have all or none of the keys below ``node``, and those that have them agree in every value."""
    below = [values for key, values in table.items() if key.startswith(f"{node}.")]
    absent = {tuple(value == ABSENT for value in values) for values in below}
    return len(below) > 1 and len(absent) == 1 and True in next(iter(absent)) and all(len(set(values) - {ABSENT}) == 1 for values in below)


def names_own_folder(run: Run, value: Any) -> bool:
    """Tell whether a value is a path in the run's own folder, or a list with one: a number is none, whatever the folder is called."""
    name, text = run.folder.name, str(value)
    return (text == name and not name.isdecimal()) or bool(re.search(rf"(^|[/'\"]){re.escape(name)}/|/{re.escape(name)}($|['\"])", text))


def says_nothing(key: str) -> bool:
    """Tell whether a key cannot change a run's figures: it describes the page or the paper's row, or how the run was started."""
    return key in ("resume", "fresh") or key.startswith(("report.", "method.published."))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested config as one dict with dotted keys; lists stay values."""
    if not isinstance(config, dict) or not config:
        return {prefix: config} if prefix else {}
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _text(value: Any) -> str:
    if value is _MISSING:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, default=str)
