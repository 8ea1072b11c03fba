"""Full keys (``trainer.max_steps``) of a configuration: listing them, and the one nearest to a mistyped key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any

from omegaconf import DictConfig, OmegaConf

_ABSENT = object()


def plain(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as nested dictionaries and lists, references not followed."""
    content = OmegaConf.to_container(config, resolve=False)
    assert isinstance(content, dict)
    return {str(name): value for name, value in content.items()}


def dotted(key: str) -> str:
    """Return ``a[0].b`` and ``a[0][b]`` as ``a.0.b``."""
    return re.sub(r"\[([^\]]*)\]", r".\1", key)


def all_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield every full key of nested dictionaries, branches included."""
    for name, value in tree.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from all_keys(value, f"{prefix}{name}.")


def exists(tree: Any, key: str) -> bool:
    """Tell whether nested dictionaries and lists hold the full key."""
    return value_at(tree, key, _ABSENT) is not _ABSENT


def value_at(tree: Any, key: str, otherwise: Any = None) -> Any:
    """Return what nested dictionaries and lists hold at the full key; ``otherwise`` where there is no such key."""
    for part in dotted(key).split("."):
        if isinstance(tree, list) and part.lstrip("-").isdigit() and -len(tree) <= int(part) < len(tree):
            tree = tree[int(part)]
        elif isinstance(tree, Mapping) and part in tree:
            tree = tree[part]
        else:
            return otherwise
    return tree


def did_you_mean(key: str, valid: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest full key, comparing whole keys and last names, or an empty string."""
    scored = [(_likeness(dotted(key), candidate), candidate) for candidate in valid]
    score, candidate = max(scored, default=(0.0, ""))
    return f" Did you mean '{candidate}'?" if score >= 0.6 else ""


def _likeness(key: str, candidate: str) -> float:
    last = _ratio(key.rpartition(".")[2], candidate.rpartition(".")[2])
    return max(_ratio(key, candidate), 0.95 * last) + 0.01 * _ratio(key, candidate)


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one.lower().replace("_", ""), other.lower().replace("_", "")).ratio()
