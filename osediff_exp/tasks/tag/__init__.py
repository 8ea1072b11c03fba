"""task=tag: fill the cache of tags before a training, tag photos, or run RAM on a tensor."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from osediff_exp.errors import UserError
from osediff_exp.runtime import prepare_process, quiet_libraries
from osediff_exp.tasks.tag.filling import fill
from osediff_exp.tasks.tag.photos import tag_photos
from osediff_exp.tasks.tag.tensors import TENSOR_SUFFIXES, run_on_tensor

Figures = dict[str, float | int | str | None]


def run(config: DictConfig, run_dir: Path) -> Figures:
    """Tag what ``config.input`` names, or, without it, what a training of this configuration will ask about.

    Raises:
        UserError: the configuration has no tagger, or nothing to tag.
        Incomplete: some photos cannot be read.
    """
    quiet_libraries()
    prepare_process(seed=config.seed)
    if config.tag.batch_size < 1:
        raise UserError(f"tag.batch_size={config.tag.batch_size} tags nothing: give at least 1")
    if config.input is None:
        return fill(config, run_dir)
    path = Path(config.input).expanduser()
    if path.suffix.lower() in TENSOR_SUFFIXES:
        return run_on_tensor(config, path, run_dir)
    return tag_photos(config, path, run_dir)
