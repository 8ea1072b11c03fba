"""Which training a checkpoint is of, so that the same training with other seeds is recognised wherever its networks are evaluated."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

# What decides what is learnt. How it is logged, named and resumed does not, nor where the earlier stages lie (``method.needs``), as every
# seed has its own: which trainings they are of stands in ``STAGES``.
STAGES = "stages"
"""In a checkpoint's configuration: name of a part that ``method.needs`` names -> the key of the training that gave it."""
_DECIDES = (
    "lambda1", "lambda2", "init", "backbone", "prompt", "degradation", "data", "optimizer", "generator", "method", "loss", "trainer",
    STAGES,
)  # fmt: skip


class Training(NamedTuple):
    """``seed``, and 16 hex digits of all else that decides what was learnt."""

    seed: int
    key: str


def training_of(config: Mapping[str, Any]) -> Training | None:
    """Return the training that a run's whole configuration describes; None for one that names no seed or no training."""
    seed = config.get("seed")
    if isinstance(seed, bool) or not isinstance(seed, int) or "trainer" not in config:
        return None
    decides = {name: config[name] for name in _DECIDES if name in config}
    method = decides.get("method")
    if hasattr(method, "items"):
        decides["method"] = {key: value for key, value in method.items() if key != "needs"}  # type: ignore[union-attr]
    text = json.dumps(_without_seed(decides, seed), sort_keys=True, default=str)
    return Training(seed, hashlib.sha256(text.encode()).hexdigest()[:16])


def _without_seed(value: Any, seed: int, name: str = "") -> Any:
    if hasattr(value, "items"):
        return {str(key): _without_seed(item, seed, str(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_seed(item, seed) for item in value]
    return "seed" if name.endswith("seed") and value == seed else value
