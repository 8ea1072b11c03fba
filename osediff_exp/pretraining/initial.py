"""A backbone with a trained VAE and an untrained U-Net and text encoder: where the prior stage starts."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.noise_schedule import NoiseSchedule
from osediff_exp.pretraining.tokenizer import train_tokenizer

log = logging.getLogger(__name__)


def load_vae(folder: Path) -> AutoencoderKL:
    """Return the VAE of the first stage.

    Raises:
        UserError: if the folder has none, or its files are damaged or no safetensors.
    """
    remedy = "train it first with stage=vae and pass its run folder's 'vae'"
    if not (folder / "config.json").is_file():
        raise UserError(f"pretrain.vae={folder} has no config.json: {remedy}")
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("_class_name")
        if kind != AutoencoderKL.__name__:
            raise UserError(f"pretrain.vae={folder} is a {kind or 'network of another kind'}, no AutoencoderKL: {remedy}")
        return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"pretrain.vae={folder} cannot be read ({reason}): {remedy}") from error


def carry_over(network: nn.Module, source: nn.Module) -> tuple[int, int]:
    """Copy every tensor of ``source`` that has a namesake of the same shape in ``network``; return how many, and of how many.

    So weights go on in an architecture that differs in places: without an attention, with one more, with more latent channels. Where
    ``network`` has more of these, what ``source`` computes with its own is computed still, and the new ones start silent.
    """
    own, given = network.state_dict(), source.state_dict()
    fitting = {name: _fitted(name, given[name].to(tensor), tensor) for name, tensor in own.items() if name in given}
    found = {name: tensor for name, tensor in fitting.items() if tensor is not None}
    network.load_state_dict(own | found)
    return len(found), len(own)


# The layers next to the latents, of an AutoencoderKL and of a U-Net: do outputs, do inputs count latent channels?
_BESIDE_LATENTS = {
    "encoder.conv_out": (True, False),
    "quant_conv": (True, True),
    "post_quant_conv": (True, True),
    "decoder.conv_in": (False, True),
    "conv_in": (False, True),
    "conv_out": (True, False),
}
_MEANS_AND_VARIANCES = ("encoder.conv_out", "quant_conv")  # their outputs are means, then log variances


def _fitted(name: str, given: Tensor, own: Tensor) -> Tensor | None:
    """Return ``given`` in the shape of ``own``, None where it does not fit: another shape, and not for more latent channels."""
    if given.shape == own.shape:
        return given
    layer = name.rpartition(".")[0]
    grows = [a < b for a, b in zip(given.shape, own.shape, strict=False)]
    if given.ndim != own.ndim or grows[:2] != [*_BESIDE_LATENTS.get(layer, ())][: own.ndim]:
        return None
    wide = own.clone()
    rows = _places(len(given), len(own), doubled=layer in _MEANS_AND_VARIANCES)
    if given.ndim == 1:
        wide[rows] = given
        return wide
    columns = _places(given.shape[1], own.shape[1], doubled=layer == "quant_conv")
    wide[rows] = 0.0  # an old output reads nothing from new inputs
    wide[rows[:, None], columns] = given
    return wide


def _places(count: int, wide: int, *, doubled: bool) -> Tensor:
    """Return where ``count`` old channels lie among ``wide`` ones: at the front, or of both halves."""
    if not doubled:
        return torch.arange(count)
    first = torch.arange(count // 2)
    return torch.cat([first, wide // 2 + first])


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
