"""What a command says when it loads a checkpoint: whose code may run, which prompts are used, how pictures are restored.

A checkpoint carries the configuration of its training, and only what was typed can be meant to replace it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import OmegaConf

from osediff_exp.checkpoints.loading import carries_configuration
from osediff_exp.errors import UserError
from osediff_exp.models.places import find_file
from osediff_exp.restoration.finished import file_identity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

    from osediff_exp.restoration.restorer import Restorer

_ARGUMENT = re.compile(r"(?<![\w.])(steps|guidance|device|dtype|decoder|color_fix|min_side)=")
_OF_A_MODEL = ("backbone", "generator", "method")
_INSTEAD = {  # what a restorer takes whatever the checkpoint says
    "backbone.loader.sources": "sources",
    "backbone.recipe.color_fix": "color_fix",
    "backbone.recipe.min_side": "min_side",
    "generator.guidance": "guidance",
    "generator.steps": "steps",
    "method.color_fix": "color_fix",
}


def typed_settings(*groups: str) -> list[str]:
    """Return the command's overrides of ``groups`` and of keys in them (of a sweep's arm: its own too), without leading plus signs."""
    typed = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return [text.lstrip("+~") for text in typed if _key(text).partition(".")[0] in groups]


def typed_prompt(config: DictConfig) -> dict[str, Any] | None:
    """Return the command's prompt configuration as plain data if any of it was typed; None: the checkpoint's own is meant."""
    return model_settings(config)["prompt"] if typed_settings("prompt") else None


def prompt_identity(config: DictConfig) -> list[str]:
    """Return what else than the configuration tells a typed prompt's words: that it was typed, and the versions of the files it reads.

    Raises:
        UserError: a file is not there.
    """
    prompt = typed_prompt(config)
    if prompt is None:
        return []
    reads = prompt["reads"] if prompt["words"] in ("own", "other") else []
    named = [(key, OmegaConf.select(config, key)) for key in reads]
    return ["typed prompt", *(file_identity(find_file(str(value), key)) for key, value in named if value is not None)]


def refuse_model_settings(config: DictConfig, checkpoints: Sequence[str | Path]) -> None:
    """Raise UserError where settings that describe a model were typed and every checkpoint carries its own: they would change nothing."""
    typed = typed_settings(*_OF_A_MODEL)
    if not typed or not checkpoints or not all(map(carries_configuration, checkpoints)):
        return
    option = _INSTEAD.get(_key(typed[0]))
    if config.task.name == "export":
        option = option if option == "sources" else None
    elif option is not None:
        option = f"restorer.{option}"
    remedy = f"use {option}" if option else "leave it out"
    raise UserError(f"{typed[0]} would change nothing: {checkpoints[0]} carries the configuration of its training: {remedy}")


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].partition("@")[0]


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
    settings: Any = {"settings": model_settings(config), "packages": own_packages(config), "prompt": typed_prompt(config)}
    try:
        return instantiate(config.restorer)(checkpoint, **settings)
    except UserError as error:  # from Python they are arguments; here they are keys of restorer
        raise UserError(_ARGUMENT.sub(r"restorer.\1=", str(error))) from error
