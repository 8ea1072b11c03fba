"""Resolvers that the configuration uses."""

from __future__ import annotations

import hashlib
import math
import re
from typing import Any

from omegaconf import OmegaConf

_LONGEST = 100


def slug(text: str) -> str:
    """Return ``text`` as one safe file name of at most 100 characters; a shortened name ends in a hash of the whole.

    ``slug("+loss/terms=[mse, vsd]")`` is ``loss-terms=mse,vsd``.
    """
    bare = re.sub(r"[\[\]{}()'\"\s+~]", "", str(text))
    safe = re.sub(r"[^A-Za-z0-9=.,_-]+", "-", bare).strip(".-")
    if len(safe) <= _LONGEST:
        return safe
    return f"{safe[: _LONGEST - 9]}~{hashlib.sha1(safe.encode()).hexdigest()[:8]}"


def times(first: float, second: float) -> float:
    """Return the product of two numbers."""
    return float(first) * float(second)


def either(first: Any, otherwise: Any) -> Any:
    """Return ``first``, or ``otherwise`` where it is None."""
    return otherwise if first is None else first


def if_given(value: Any, then: Any, otherwise: Any) -> Any:
    """Return ``then`` where ``value`` is not None, else ``otherwise``."""
    return otherwise if value is None else then


def gpus(accelerator: str, devices: int) -> int | None:
    """Return how many GPUs a node gives to a run on ``devices`` of this kind; None where it needs none."""
    return devices if accelerator in ("gpu", "cuda") else None


def steps(otherwise: int, *, _parent_: Any) -> int:
    """Return the optimizer steps that the ``trainer`` node around the reference allows: its budget's, ``otherwise`` without a budget."""
    budget = _parent_.get("budget_samples")
    if budget is not None:
        return steps_within(budget, _parent_)
    if _parent_.get("budget_minutes") is None:
        return otherwise
    from osediff_exp.bars import UNBOUNDED_STEPS

    return UNBOUNDED_STEPS


def steps_within(budget: int, trainer: Any) -> int:
    """Return how many steps see at most ``budget`` samples (one at least), counted as result.json's ``samples_seen`` is."""
    per_step = [trainer.get(key) or 1 for key in ("batch_size", "accumulate", "critic_updates", "devices", "num_nodes")]
    return max(1, int(budget) // math.prod(int(factor) for factor in per_step))


def register_resolvers() -> None:
    """Make ``${slug:...}``, ``${times:...}`` and the other functions above known in this process.

    A launcher's process imports the job's module, which calls this.
    """
    OmegaConf.register_new_resolver("slug", slug, replace=True)
    OmegaConf.register_new_resolver("times", times, replace=True)
    OmegaConf.register_new_resolver("either", either, replace=True)
    OmegaConf.register_new_resolver("if_given", if_given, replace=True)
    OmegaConf.register_new_resolver("gpus", gpus, replace=True)
    OmegaConf.register_new_resolver("steps", steps, replace=True)
