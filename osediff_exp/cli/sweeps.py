"""Sweeps that are run again: which folder the same command goes on in, and what is to do for an arm that is there already."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf, open_dict

from osediff_exp.cli.keys import plain
from osediff_exp.cli.locks import is_held
from osediff_exp.cli.records import CONFIG, is_whole, write_text
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SWEEP = "sweep.json"
_NO_MATTER = ("resume", "fresh", "report", "packages", "max_megapixels", "skip_refused")  # keys that change no figure of a run


class FolderTakenError(UserError):
    """A run may not write into its folder: nothing there is touched, not even to note the mistake."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What makes two calls the same sweep: what is typed (but for where it is put and how it is launched), and all settings behind it.

    ``num_arms`` is None where the sweeper decides as it goes.
    """

    command: list[str]
    settings: str
    num_arms: int | None

    @classmethod
    def of(cls, overrides: Sequence[str], config: DictConfig, num_arms: int | None) -> Sweep:
        """Describe the sweep of ``overrides``; ``config`` is the composition of its last arm."""
        command = sorted(text for text in overrides if not text.lstrip("+").startswith(("hydra.", "hydra/", "fresh=")))
        that_matter = {key: value for key, value in plain(config).items() if key not in (*_NO_MATTER, "hydra")}
        settings = hashlib.sha256(json.dumps(that_matter, sort_keys=True, default=str).encode()).hexdigest()[:16]
        return cls(command=command, settings=settings, num_arms=num_arms)


class Earlier(Enum):
    """What an earlier call left of an arm."""

    NOTHING = "nothing"
    CHECKPOINT = "checkpoint"
    RESULT = "result"


def write_sweep(folder: Path, sweep: Sweep) -> None:
    """Write sweep.json."""
    write_text(folder / SWEEP, json.dumps(asdict(sweep), indent=2) + "\n")


def is_of(folder: Path, sweep: Sweep) -> bool:
    """Tell whether ``folder`` is of the same sweep."""
    return _read(folder / SWEEP) == asdict(sweep)


def unfinished_sweep(parent: Path, sweep: Sweep) -> Path | None:
    """Return the newest folder below ``parent`` of the same sweep, if it has arms to do and nobody is working on it."""
    for path in sorted(parent.glob(f"*/{SWEEP}"), key=lambda path: path.parent.name, reverse=True):
        if is_of(path.parent, sweep) and not is_held(path.parent):
            done, total = progress(path.parent)
            return path.parent if total is not None and done < total else None
    return None


def progress(folder: Path) -> tuple[int, int | None]:
    """Return (arms that have done their whole job, arms) of a sweep."""
    done = sum(is_whole(path.parent) for path in folder.glob(f"*/{CONFIG}"))
    return done, _read(folder / SWEEP).get("num_arms")


def earlier(run_dir: Path, config: DictConfig) -> Earlier:
    """Tell what an earlier call left in an arm's folder.

    Raises:
        FolderTakenError: what it left was made with other settings, and would be lost.
    """
    state = Earlier.RESULT if is_whole(run_dir) else Earlier.CHECKPOINT if _checkpoint(run_dir).is_file() else Earlier.NOTHING
    if state is not Earlier.NOTHING and (differing := _first_difference(run_dir, config)):
        raise FolderTakenError(
            f"{run_dir} holds a run with other settings ({differing}): choose another hydra.sweep.dir, or move that folder away"
        )
    return state


def arm_of(config: DictConfig, number: int, sweep_dir: Path) -> tuple[Path, DictConfig]:
    """Return the folder of a sweep's arm and its configuration as its job gets it, from Hydra's composition of it."""
    config = config.copy()
    with open_dict(config):
        config.hydra.job.num = number
        run_dir = sweep_dir / str(OmegaConf.select(config, "hydra.sweep.subdir"))
        del config["hydra"]  # as Hydra does before it hands the configuration over
    return run_dir, config


def keep(run_dir: Path) -> None:
    """Count a finished arm among those of the present call."""
    (run_dir / CONFIG).touch()
    print(f"{run_dir.name}: finished earlier, kept", flush=True)


def _checkpoint(run_dir: Path) -> Path:
    return run_dir / "checkpoints" / "last.ckpt"


def _first_difference(run_dir: Path, config: DictConfig) -> str:
    """Name the first key whose value is not the one of the folder's config.yaml; an empty text where all agree."""
    try:
        there = dict(leaves(yaml.safe_load((run_dir / CONFIG).read_text(encoding="utf-8"))))
    except (OSError, yaml.YAMLError, AttributeError):
        return "its config.yaml cannot be read"
    here = dict(leaves(yaml.safe_load(OmegaConf.to_yaml(config, resolve=True))))
    for key in sorted({*there, *here}):
        if there.get(key) != here.get(key) and not _both_nan(there.get(key), here.get(key)):
            return f"{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} now"
    return ""


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through a configuration's keys and values, but for those at the top that change no figure."""
    for name, value in tree.items():
        if prefix or name not in _NO_MATTER:
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value


def _both_nan(first: Any, second: Any) -> bool:
    return all(isinstance(value, float) and math.isnan(value) for value in (first, second))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
