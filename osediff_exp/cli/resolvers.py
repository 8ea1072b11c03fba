"""Resolvers that the configuration uses."""

from __future__ import annotations

import hashlib
import re

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


def gpus(accelerator: str, devices: int) -> int | None:
    """Return how many GPUs a node gives to a run on ``devices`` of this kind; None where it needs none."""
    return devices if accelerator in ("gpu", "cuda") else None


def register_resolvers() -> None:
    """Make ``${slug:...}``, ``${times:...}`` and ``${gpus:...}`` known in this process (a launcher's imports the job's module)."""
    OmegaConf.register_new_resolver("slug", slug, replace=True)
    OmegaConf.register_new_resolver("times", times, replace=True)
    OmegaConf.register_new_resolver("gpus", gpus, replace=True)
