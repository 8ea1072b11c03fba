"""task=export: write a checkpoint as osediff.pkl, as LoRA weights, as a whole model in diffusers layout, or as plain weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from osediff_exp.checkpoints.base import Exported, Loaded
from osediff_exp.checkpoints.files import check_absent, check_replaceable
from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.lora_folder import write_lora_folder
from osediff_exp.checkpoints.merged import write_merged_folder
from osediff_exp.checkpoints.named import checkpoint_path
from osediff_exp.checkpoints.released import write_released
from osediff_exp.checkpoints.weights_folder import write_weights_folder
from osediff_exp.errors import UserError, nearest
from osediff_exp.runtime import prepare_process, quiet_libraries
from osediff_exp.tasks.loading import model_settings, own_packages, refuse_model_settings, typed_prompt

Figures = dict[str, float | int | str | None]
Write = Callable[[Loaded, Path], Exported]


def run(config: DictConfig, run_dir: Path) -> Figures:
    """Export ``config.checkpoint``; return what was written where, and on which backbone it restores.

    Raises:
        UserError: if the checkpoint cannot be read, the format cannot hold it, or ``output`` would overwrite something.
    """
    quiet_libraries()
    prepare_process(seed=config.seed)
    write = _writer(config)
    checkpoint, output = checkpoint_path(config.checkpoint), Path(config.output).expanduser().absolute()
    if output == checkpoint.absolute() or output in checkpoint.absolute().parents:
        raise UserError(f"output={config.output} is, or holds, the checkpoint itself: give another place")
    (check_absent if config.format == "released" else check_replaceable)(output)  # and again when it is written
    refuse_model_settings(config, [checkpoint])
    sources = None if config.sources is None else [str(source) for source in config.sources]
    loaded = load_checkpoint(
        checkpoint,
        settings=model_settings(config),
        sources=sources,
        packages=own_packages(config),
        prompt=typed_prompt(config),
        average=config.average,
    )
    exported = write(loaded, output)
    return {
        "format": config.format,
        "output": str(output),
        "num_tensors": exported.num_tensors,
        "params": exported.params,
        "fingerprint": exported.fingerprint,
        "steps": loaded.steps,
    }


def _writer(config: DictConfig) -> Write:
    """Return the function that writes ``config.format``."""
    writers: dict[str, Write] = {
        "released": write_released,
        "lora": lambda loaded, output: write_lora_folder(loaded, output, dtype=config.dtype),
        "weights": lambda loaded, output: write_weights_folder(loaded, output, dtype=config.dtype),
        "merged": lambda loaded, output: write_merged_folder(loaded, output, dtype=config.dtype),
    }
    if config.format not in writers:
        raise UserError(f"format={config.format} is unknown: use released, lora, merged or weights.{nearest(str(config.format), writers)}")
    return writers[config.format]
