"""Arms of a sweep that cannot be: a method takes no more sampling steps than its chain has, which its run's configuration tells.

With ``skip_refused=true`` such an arm is left out, with its reason, where it would end as failed. It is known before torch is imported.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import OmegaConf

from osediff_exp.checkpoints.named import checkpoint_path

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from omegaconf import DictConfig

KEY = "restorer.steps"
_MOST_STEPS: dict[str, int | str] = {
    "osediff_exp.models.generator.OneStepGenerator": 1,
    "osediff_exp.methods.sinsr.generator.SinSRGenerator": 1,
    "osediff_exp.methods.resshift.generator.ResShiftGenerator": "T",
}
"""The most steps of a generator, or the option of it that says so. The others go down the backbone's chain of 1,000."""


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
    """Return the most steps of a run's or an export's generator, as the configuration beside it says; None: not known."""
    generator = _configuration(checkpoint).get("generator")
    generator = generator if isinstance(generator, dict) else {}
    most = _MOST_STEPS.get(str(generator.get("_target_")))
    most = generator.get(most) if isinstance(most, str) else most
    return most if isinstance(most, int) else None


def _configuration(checkpoint: Path) -> dict[str, Any]:
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent.parent  # RUN/checkpoints/last.ckpt
    try:
        if (folder / "osediff.json").is_file():
            found = json.loads((folder / "osediff.json").read_text(encoding="utf-8"))["config"]
        else:
            found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}
