"""Is what a run reads there? Photos, pairs and checkpoints are looked for before anything heavy is imported or any folder made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.utils import instantiate
from omegaconf import OmegaConf

from osediff_exp.checkpoints.named import checkpoint_path
from osediff_exp.errors import UserError, nearest
from osediff_exp.models.places import find_file

if TYPE_CHECKING:
    from omegaconf import DictConfig

_READS_PHOTOS = ("train", "pretrain")
_MAKES_PROMPTS = ("train", "pretrain", "tag", "benchmark")
_seen: set[str] = set()


def check_inputs(config: DictConfig) -> None:
    """Raise UserError where a photo folder is missing or empty, or a file that the task names in ``task.reads`` does not exist."""
    if config.task.name in _READS_PHOTOS or (config.task.name == "tag" and config.input is None):
        _check_photos(config)
    for key in config.task.get("reads") or []:
        value = OmegaConf.select(config, key)
        for path in value if OmegaConf.is_list(value) else [value]:
            if path is not None:
                check_path(checkpoint_path(str(path)) if key == "checkpoint" else Path(str(path)), key)
    if config.task.name in _MAKES_PROMPTS and config.prompt.get("words") in ("own", "other"):
        for key in config.prompt.get("reads") or []:
            if (value := OmegaConf.select(config, key)) is not None:
                find_file(str(value), key)
    resume = config.get("resume")
    if resume not in (None, "auto"):
        check_path(Path(str(resume)), "resume")
    if config.task.name == "train" and config.get("init") is not None:
        check_path(checkpoint_path(str(config.init)), "init")
    if config.task.name == "train":
        for name, path in (OmegaConf.select(config, "method.needs") or {}).items():
            if path is not None:  # else the same sweep is searched, when its earlier arms have run
                check_path(checkpoint_path(str(path)), f"method.needs.{name}")


def _check_photos(config: DictConfig) -> None:
    module = OmegaConf.select(config, "data.datamodule")
    if module is None:
        raise UserError("the chosen data is a test set, which task=evaluate reads: use data=sample, data=folder or data=lsdir_ffhq here")
    if config.task.name in _READS_PHOTOS:
        _tell_if_nothing_is_validated(module)
    for node in [*(module.get("train") or []), *(module.get("val") or [])]:
        text = OmegaConf.to_yaml(node, resolve=True)
        if text not in _seen:  # a large folder is listed once, not once per arm
            instantiate(node).pictures()
            _seen.add(text)
    for key in ("val_lr_root", "val_hr_root"):
        if module.get(key) is not None:
            check_path(Path(str(module[key])), f"data.{key}")


def _tell_if_nothing_is_validated(module: DictConfig) -> None:
    synthetic = [node for node in module.get("val") or [] if not node.get("optional") or node.get("root") is not None]
    if module.get("val_first") == 0:
        reason = "data.val_first=0"
    elif synthetic or module.get("val_lr_root") is not None:
        return
    else:
        reason = "neither data.val_root nor data.val_lr_root and data.val_hr_root are set"
    if "validation" not in _seen:
        print(f"{reason}: nothing is validated, so there will be no figures of quality, no pictures, nothing to compare", file=sys.stderr)
        _seen.add("validation")


def check_path(path: Path, key: str) -> None:
    """Raise UserError unless ``path`` exists; the message offers the nearest name beside it."""
    path = path.expanduser()
    if path.is_symlink() and not path.exists():
        raise UserError(f"{key}={path}: this is a link to {path.readlink()}, which is not there")
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"{key}={path}: there is no such file or folder.{nearest(path.name, siblings)}")
