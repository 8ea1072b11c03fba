"""Arms of a sweep that cannot be: a method takes no more sampling steps than its chain has, which a finished run and an export tell.

With ``skip_refused=true`` such an arm is left out, with its reason, where it would end as failed. It is known before torch is imported.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from osediff_exp.checkpoints.named import checkpoint_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omegaconf import DictConfig

KEY = "restorer.steps"


def refusal(config: DictConfig) -> str | None:
    """Return why an arm is left out, or None: it runs, and what is not known here its checkpoint tells when it is loaded."""
    steps, checkpoint = OmegaConf.select(config, KEY), config.get("checkpoint")
    if not config.get("skip_refused") or steps is None or checkpoint is None:
        return None
    most = _most_steps(checkpoint_path(str(checkpoint)))
    return None if most is None or steps <= most else f"{KEY}={steps}: {checkpoint} takes {f'1 to {most}' if most > 1 else 'one'}"


def refusals(arms: Sequence[DictConfig]) -> list[str]:
    """Return the reasons of those among ``arms`` that are left out, each once."""
    return list(dict.fromkeys(reason for arm in arms if (reason := refusal(arm)) is not None))


def _most_steps(checkpoint: Path) -> int | None:
    """Return the most steps that a finished run's or an export's generator takes, as the JSON beside it says; None: not known."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent.parent  # RUN/checkpoints/last.ckpt
    for name in ("osediff.json", "result.json"):
        try:
            most = json.loads((folder / name).read_text(encoding="utf-8")).get("max_sampling_steps")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(most, int):
            return most
    return None
