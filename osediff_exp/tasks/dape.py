"""task=pretrain stage=dape: the paper's tagger of degraded pictures, trained from RAM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from osediff_exp.checkpoints.files import write_file
from osediff_exp.errors import UserError
from osediff_exp.models.taggers.ram.files import RAMFiles
from osediff_exp.models.taggers.ram.layout import load_lora, lora_tensors, read_tensors
from osediff_exp.models.taggers.ram.prompt import RAMPrompt
from osediff_exp.pretraining.dape import DAPEPretraining

DAPE = "DAPE.pth"


def dape_module(config: DictConfig, settings: dict[str, Any]) -> DAPEPretraining:
    """Return the module around the RAM that ``prompt=ram`` names, with new LoRA or with that of ``prompt.lora``.

    Raises:
        UserError: the prompt is not RAM's, or a file does not fit.
    """
    prompt, dape = config.prompt, settings["dape"]
    if not str(prompt.extractor["_target_"]).endswith(RAMPrompt.__name__):
        raise UserError("stage=dape adapts RAM, which the prompt does not name: add prompt=ram prompt.weights=ram_swin_large_14m.pth")
    files = RAMFiles(prompt.weights, None, dtype="float32", image_size=prompt.image_size)
    torch.manual_seed(config.seed)
    module = DAPEPretraining(
        files.network(),
        rank=dape["rank"],
        logits_weight=dape["logits_weight"],
        antialias=prompt.antialias,
        learning_rate=dape["learning_rate"],
        **{key: settings[key] for key in ("weight_decay", "warmup_steps", "max_steps")},
    )
    if prompt.lora is not None:
        lora = RAMFiles(prompt.weights, prompt.lora).lora
        assert lora is not None
        load_lora(module.network, read_tensors(lora), str(lora))
    return module


def save_dape(module: DAPEPretraining, run_dir: Path) -> None:
    """Leave ``DAPE.pth``, in the released layout: what prompt.lora takes, and the released code too."""
    write_file(run_dir / DAPE, lambda file: torch.save(lora_tensors(module.network), file))
