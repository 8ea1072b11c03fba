"""A backbone with a trained VAE and an untrained U-Net and text encoder: where the prior stage starts."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.noise_schedule import NoiseSchedule
from osediff_exp.pretraining.tokenizer import train_tokenizer

log = logging.getLogger(__name__)


def load_vae(folder: Path) -> AutoencoderKL:
    """Return the VAE of the first stage.

    Raises:
        UserError: if the folder has none.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"pretrain.vae={folder} has no config.json: train it first with stage=vae and pass its run folder's 'vae'")
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)


def carry_over(network: nn.Module, source: nn.Module) -> tuple[int, int]:
    """Copy every tensor of ``source`` that has a namesake of the same shape in ``network``; return how many, and of how many.

    So weights go on in an architecture that differs in places: without an attention, with one more.
    """
    own, given = network.state_dict(), source.state_dict()
    fitting = {name: tensor.to(own[name]) for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    network.load_state_dict(own | fitting)
    return len(fitting), len(own)


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
    init: Backbone | None = None,
) -> Backbone:
    """Return the backbone to train; ``unet``, ``text_encoder`` and ``scheduler`` are the classes' own configuration keys.

    ``init`` is a backbone to go on from: its tokenizer, and every tensor of its U-Net and text encoder that fits.
    """
    tokenizer = (init and init.tokenizer) or train_tokenizer(
        tokenizer_folder,
        prompts=prompts,
        content_words=content_words,
        vocab_size=vocab_size,
        max_length=text_encoder["max_position_embeddings"],
    )
    special = {"vocab_size": len(tokenizer), "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    backbone = Backbone(
        vae=vae,
        unet=UNet2DConditionModel(**unet),
        text_encoder=CLIPTextModel(CLIPTextConfig(**text_encoder, **special, pad_token_id=tokenizer.pad_token_id)),
        tokenizer=tokenizer,
        schedule=NoiseSchedule.from_config(scheduler),
        source="untrained",
    )
    if init is not None:
        for part in ("unet", "text_encoder"):
            taken, needed = carry_over(getattr(backbone, part), getattr(init, part))
            log.info("%s: %d of %d tensors taken from %s", part, taken, needed, init.source)
    return backbone
