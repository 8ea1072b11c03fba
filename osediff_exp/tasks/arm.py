"""What this run is called beside the other arms of its sweep."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from omegaconf import DictConfig


@dataclass(frozen=True)
class Arm:
    """A run's place in its sweep.

    Attributes:
        sweep: name of the sweep ("vsd_ablation/2026-11-23_10-00-00"), None for a run that belongs to none.
        label: what the arm is called; its runs differ in nothing but their seed.
        name: the label, and the seed where seeds are an axis of the sweep.
        tags: the overrides that make this run differ from others of the sweep, and the experiment.
    """

    sweep: str | None
    label: str
    name: str
    tags: tuple[str, ...]


def this_arm(config: DictConfig, run_dir: Path) -> Arm:
    """Return the arm that the running job is; outside a sweep it is called as its folder (or ``config.name``)."""
    hydra = HydraConfig.get() if HydraConfig.initialized() else None
    experiment = str(hydra.runtime.choices.get("experiment") or "") if hydra is not None else ""
    if hydra is None or hydra.mode != RunMode.MULTIRUN:
        label = config.name or run_dir.name
        return Arm(None, label, label, (experiment,) if experiment else ())
    shared = set(hydra.job.config.override_dirname.exclude_keys)
    swept = [text.lstrip("+") for text in hydra.overrides.task if _key(text) not in shared]
    labels = {str(key).lstrip("+"): str(value) for key, value in (config.report.labels or {}).items()}
    seeds = [text for text in swept if _key(text) == "seed"]
    label = config.name or _label([text for text in swept if text not in seeds], labels) or "default"
    sweep = sweep_name(Path(hydra.sweep.dir))
    return Arm(sweep, label, ", ".join([label, *seeds]), tuple(filter(None, [experiment, *swept])))


def sweep_name(sweep_dir: Path) -> str:
    """Return the last two parts of a sweep folder's path: what is swept, and when.

    Signs that mean something in W&B's filters become "-": its library reads them even inside quotes.
    """
    return re.sub(r"[^\w./ -]", "-", "/".join(sweep_dir.absolute().parts[-2:]))


def _label(swept: Sequence[str], labels: Mapping[str, str]) -> str:
    """Name the arm as the report does: by the names given for its overrides."""
    return labels.get(", ".join(swept)) or ", ".join(labels.get(text, text) for text in swept)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]
