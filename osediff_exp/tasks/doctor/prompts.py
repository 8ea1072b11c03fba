"""What the chosen source of prompts needs, and where it is looked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from osediff_exp.errors import UserError
from osediff_exp.models.places import CACHE_VARIABLE, WEIGHTS_VARIABLE, cache_root, find_file, weight_folders
from osediff_exp.tasks.doctor.check import Check
from osediff_exp.tasks.doctor.files import is_writable

_REMEDY = "give the file's path, put it into one of the folders, or choose prompt=fixed"
_RAM = ("ram_swin_large_14m.pth", "DAPE.pth", "ram_tag_list.txt", "ram_tag_list_threshold.txt")


def prompts(config: DictConfig, run_dir: Path) -> Check:
    """Can the configured prompts be made? Everything but the weights' own contents is tried."""
    if config.prompt.words in ("fixed", "none"):
        return Check("prompts", "ok", f"prompt.words={config.prompt.words} needs nothing")
    target = str(config.prompt.extractor["_target_"]).rpartition(".")[2]
    from osediff_exp.tasks.prompting import build_prompts

    try:
        build_prompts(config)
    except UserError as error:
        return Check("prompts", "error", f"{target}: {error}", _REMEDY)
    except Exception as error:
        if not isinstance(cause := error.__cause__, UserError):
            raise
        return Check("prompts", "error", f"{target}: {cause}", _REMEDY)
    if target == "RAMPrompt" and importlib.util.find_spec("timm") is None:
        return Check("prompts", "error", f"{target}: its files are here, but timm is missing", "pip install osediff-exp[ram]")
    found = [f"{key.partition('.')[2]}={find_file(str(value), key)}" for key, value in _files(config) if value is not None]
    return Check("prompts", "ok", ", ".join([f"{target}: what it needs is here", *found]))


def tagger_files(config: DictConfig, run_dir: Path) -> Check:
    """Where files of the user's own are looked for, and which of RAM's and DAPE's are there."""
    folders = ", ".join(str(folder) for folder in weight_folders())
    here = [name for name in _RAM if any((folder / name).is_file() for folder in weight_folders())]
    absent = [name for name in _RAM if name not in here]
    listed = "; ".join(filter(None, [f"here: {', '.join(here)}" if here else "", f"absent: {', '.join(absent)}" if absent else ""]))
    return Check("tagger_files", "note", f"prompt=ram looks in {folders} (${WEIGHTS_VARIABLE} comes first); {listed}")


def prompt_cache(config: DictConfig, run_dir: Path) -> Check:
    """Can tags and text features be kept?"""
    cache = config.prompt.cache
    if cache is None:
        return Check("prompt_cache", "ok", "prompt.cache=null: tags and text features are not kept")
    folder = cache_root() / "prompts" if cache == "auto" else Path(cache).expanduser()
    if not is_writable(folder):
        return Check("prompt_cache", "warning", f"{folder}: not writable", f"prompt.cache=WRITABLE_DIR, or export {CACHE_VARIABLE}=DIR")
    taggers = sum(1 for _ in (folder / "tags").glob("*/"))
    return Check("prompt_cache", "ok", f"{folder}: tags by {taggers} taggers (or settings of them)")


def _files(config: DictConfig) -> list[tuple[str, object]]:
    return [(key, OmegaConf.select(config, key)) for key in config.prompt.get("reads") or []]
