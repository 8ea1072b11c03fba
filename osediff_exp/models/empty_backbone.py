"""A backbone of the real classes without values, on the meta device: to count what its weights would be and do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from osediff_exp.errors import UserError, nearest
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.noise_schedule import NoiseSchedule
from osediff_exp.models.sources import EMBEDDED

ARCHITECTURES = Path(__file__).parent / "architectures"


class EmptyTokenizer:
    """Stands where the tokenizer would: an architecture has no vocabulary."""

    model_max_length = 0

    def __call__(self, *args: Any, **settings: Any) -> Tensor:
        raise UserError("an architecture without weights cannot read prompts: load the backbone itself")


def empty_backbone(architecture: str) -> Backbone:
    """Build the networks that ``architecture`` describes on the meta device: shapes without values, no memory, no network.

    Args:
        architecture: ``sd21`` (a folder of models/architectures), ``embedded:tiny``, or a folder in diffusers layout, weights or not.

    Raises:
        UserError: no such architecture, or one of its configurations is missing or cannot be built.
    """
    folder = _folder_of(architecture)
    schedule = NoiseSchedule.from_config(_read(folder, "scheduler/scheduler_config.json"))
    try:
        with torch.device("meta"):
            return Backbone(
                vae=AutoencoderKL.from_config(_read(folder, "vae/config.json")),
                unet=UNet2DConditionModel.from_config(_read(folder, "unet/config.json")),
                text_encoder=CLIPTextModel(CLIPTextConfig(**_read(folder, "text_encoder/config.json"))),
                tokenizer=EmptyTokenizer(),  # type: ignore[arg-type]
                schedule=schedule,
                source=f"the architecture {architecture}, without weights",
            )
    except (TypeError, ValueError) as error:
        raise UserError(f"backbone.architecture={architecture} cannot be built: {' '.join(str(error).split())}") from error


def empty_like(backbone: Backbone) -> Backbone:
    """Build ``backbone``'s networks once more on the meta device, whatever folder they came from."""
    with torch.device("meta"):
        return Backbone(
            vae=AutoencoderKL.from_config(backbone.vae.config),
            unet=UNet2DConditionModel.from_config(backbone.unet.config),
            text_encoder=CLIPTextModel(backbone.text_encoder.config),
            tokenizer=EmptyTokenizer(),  # type: ignore[arg-type]
            schedule=backbone.schedule,
            source=f"{backbone.source}, without weights",
        )


def text_inputs(backbone: Backbone) -> Tensor:
    """Return token numbers (1, L) of a full-length prompt on the text encoder's device (all alike: only their number matters)."""
    encoder = backbone.text_encoder
    return torch.zeros(1, encoder.config.max_position_embeddings, dtype=torch.long, device=encoder.device)


def _folder_of(architecture: str) -> Path:
    known = {path.parent.parent.name: path.parent.parent for path in ARCHITECTURES.glob("*/unet/config.json")}
    known |= {f"embedded:{path.parent.parent.name}": path.parent.parent for path in EMBEDDED.glob("*/unet/config.json")}
    folder = known.get(architecture, Path(architecture).expanduser())
    if not folder.is_dir():
        raise UserError(
            f"backbone.architecture={architecture} is unknown.{nearest(architecture, known)} "
            f"Use {', '.join(known)}, or a folder in diffusers layout (its configurations suffice)"
        )
    return folder


def _read(folder: Path, name: str) -> dict[str, Any]:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"backbone.architecture={folder} has no readable {name} ({type(error).__name__}): take another folder") from error
