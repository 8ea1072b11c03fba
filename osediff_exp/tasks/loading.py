"""What a command says when it loads a checkpoint: whose code may run, and how its pictures are restored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from osediff_exp.restoration.restorer import Restorer


def own_packages(config: DictConfig) -> tuple[str, ...]:
    """Return the packages of others that this command trusts. A checkpoint's own list of them is never asked."""
    return tuple(map(str, config.get("packages") or ()))


def model_settings(config: DictConfig) -> dict[str, Any]:
    """Return the groups that a checkpoint without a configuration (``osediff.pkl``) is loaded by, as plain data."""
    return {group: OmegaConf.to_container(config[group], resolve=True) for group in ("backbone", "generator", "prompt")}


def load_restorer(config: DictConfig, checkpoint: str | Path) -> Restorer:
    """Return the restorer of ``checkpoint`` with the options of ``config.restorer``.

    Raises:
        UserError: the checkpoint cannot be loaded, or an option has no such value.
    """
    return instantiate(config.restorer)(checkpoint, settings=model_settings(config), packages=own_packages(config))
