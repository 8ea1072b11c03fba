"""A lighter decoder in place of a VAE's own, for restoring alone (docs/adr/0021)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone, fingerprint_of
from osediff_exp.models.sources import as_source
from osediff_exp.models.sub_pixel_decoder import SubPixelDecoder

FOLDER = "light_decoder"
"""Where a backbone's folder has its light decoder, beside ``vae`` and ``unet``."""

_EXAMPLE = "such as that of madebyollin/taesd for Stable Diffusion 2.1"


@dataclass(frozen=True)
class LightDecoder:
    """A network from scaled latents (B, C, h, w) to pictures (B, 3, h * factor, w * factor), about [-1, 1], not clamped.

    Attributes:
        network: frozen; its weights' type is the one it computes in.
        factor: image pixels per latent pixel along one side.
    """

    network: nn.Module
    factor: int

    def to(self, device: torch.device) -> LightDecoder:
        return LightDecoder(self.network.to(device), self.factor)

    def __call__(self, latent: Tensor) -> Tensor:
        return self.network(latent.to(next(self.network.parameters()))).float()


def load_light_decoder(text: str, backbone: Backbone) -> LightDecoder:
    """Return the light decoder that ``text`` names, in the type of the backbone's weights.

    Args:
        text: ``light``, the one beside the backbone's own weights; or the folder of a :class:`SubPixelDecoder` or of an
            ``AutoencoderTiny``.
        backbone: whose latents it must decode.

    Raises:
        UserError: there is none, it cannot be loaded, or it decodes other latents.
    """
    folder = _beside(backbone) if text == "light" else Path(text).expanduser()
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"decoder={text}: {folder} has no config.json: give the folder of a light decoder, {_EXAMPLE}, or light") from None
    kind = config.get("_class_name") if isinstance(config, dict) else None
    if kind not in ("SubPixelDecoder", "AutoencoderTiny"):
        raise UserError(f"decoder={text}: {folder} holds a {kind}: give the folder of a SubPixelDecoder or an AutoencoderTiny")
    network = _load(SubPixelDecoder if kind == "SubPixelDecoder" else AutoencoderTiny, folder, text, backbone.vae.dtype)
    decoder = _tiny(network, text) if isinstance(network, AutoencoderTiny) else _sub_pixel(network, text, backbone)
    own = backbone.vae.config.latent_channels, backbone.vae_factor
    if (network.config.latent_channels, decoder.factor) != own:
        theirs = f"{network.config.latent_channels} channels at 1/{decoder.factor} of the side"
        raise UserError(
            f"decoder={text}: it decodes latents of {theirs}, but those of {backbone.source} have {own[0]} at 1/{own[1]}: "
            "give one that was made for this backbone, or null"
        )
    return decoder


def _beside(backbone: Backbone) -> Path:
    try:
        source = as_source(backbone.source)
    except UserError:
        source = backbone.source
    if isinstance(source, Path) and (source / FOLDER).is_dir():
        return source / FOLDER
    raise UserError(f"decoder=light: {backbone.source} has no {FOLDER}/: give the folder of one, {_EXAMPLE}, or null for its own decoder")


def _load(kind: Any, folder: Path, text: str, dtype: torch.dtype) -> Any:
    try:
        network, info = kind.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"decoder={text}: {folder} cannot be loaded: {reason}") from error
    if absent := [*info["missing_keys"], *info["mismatched_keys"]]:  # diffusers would leave these random
        raise UserError(f"decoder={text}: {folder} cannot be loaded: its weights lack {absent[0]}")
    return network.requires_grad_(False).eval()


def _tiny(network: AutoencoderTiny, text: str) -> LightDecoder:
    """Return TAESD's decoder: it takes scaled latents, tanh(z / 3) * 3 of them (https://github.com/madebyollin/taesd, ``taesd.py``).

    Its scaling factor is 1 and its shift 0: "TAESD directly converts SD(XL) latents into RGB images" (its issue 3). Its
    ``latent_magnitude`` and ``latent_shift`` serve to store latents as pictures, and have no part in decoding.
    """
    scale, shift = (float(network.config.get(key) or default) for key, default in (("scaling_factor", 1), ("shift_factor", 0)))
    if (scale, shift) != (1, 0):
        raise UserError(
            f"decoder={text}: it wants latents divided by {scale:g} and shifted by {shift:g}, but restorers give scaled latents: "
            "give one whose scaling_factor is 1 and whose shift_factor is 0"
        )
    levels = len(network.config.num_decoder_blocks)
    return LightDecoder(network.decoder, network.config.upsampling_scaling_factor ** (levels - 1))


def _sub_pixel(network: SubPixelDecoder, text: str, backbone: Backbone) -> LightDecoder:
    if network.config.teacher != fingerprint_of(backbone.vae.decoder):
        raise UserError(
            f"decoder={text}: it imitates another decoder than that of {backbone.source}: give one that was made for this backbone, or null"
        )
    return LightDecoder(network, network.config.factor)
