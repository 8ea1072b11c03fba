"""A backbone with a trained VAE and an untrained U-Net and text encoder: where the prior stage starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.noise_schedule import NoiseSchedule
from osediff_exp.pretraining.tokenizer import train_tokenizer


def load_vae(folder: Path) -> AutoencoderKL:
    """Return the VAE of the first stage.

    Raises:
        UserError: if the folder has none.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"pretrain.vae={folder} has no config.json: train it first with stage=vae and pass its run folder's 'vae'")
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)


def initial_backbone(
    *,
    vae: AutoencoderKL,
    unet: dict[str, Any],
    text_encoder: dict[str, Any],
    scheduler: dict[str, Any],
    tokenizer_folder: Path,
    prompts: list[str],
    content_words: list[str],
    vocab_size: int,
) -> Backbone:
    """Return the backbone to train; ``unet``, ``text_encoder`` and ``scheduler`` are the classes' own configuration keys."""
    tokenizer = train_tokenizer(
        tokenizer_folder,
        prompts=prompts,
        content_words=content_words,
        vocab_size=vocab_size,
        max_length=text_encoder["max_position_embeddings"],
    )
    special = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    return Backbone(
        vae=vae,
        unet=UNet2DConditionModel(**unet).to(memory_format=torch.channels_last),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text_encoder, **special, pad_token_id=tokenizer.pad_token_id)),
        tokenizer=tokenizer,
        schedule=NoiseSchedule.from_config(scheduler),
        source="untrained",
    )
