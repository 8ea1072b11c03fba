"""A Stable-Diffusion-style backbone: VAE, U-Net, text encoder, tokenizer and noise schedule, frozen and loaded once."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from osediff_exp.diffusion import PredictionType
from osediff_exp.errors import UserError
from osediff_exp.models.noise_schedule import NoiseSchedule
from osediff_exp.models.prompt_cache.fingerprints import encoder_key
from osediff_exp.models.sources import Part, PartLoader, resolve_source, source_name

DType = Literal["float32", "bfloat16", "float16"]


class Backbone(nn.Module):
    """The frozen networks that generator, prior and score network are views of.

    Attributes:
        vae, unet, text_encoder: diffusers/transformers modules; no parameter requires a gradient.
        tokenizer: CLIPTokenizer; prompts are padded and cut to its ``model_max_length``.
        schedule: abar_t and the prediction type.
        source: where the weights came from (a folder or a repository name).
    """

    def __init__(
        self,
        *,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        schedule: NoiseSchedule,
        source: str,
    ) -> None:
        super().__init__()
        self.vae = vae
        self.unet = unet
        self.text_encoder = text_encoder
        self.tokenizer = tokenizer
        self.schedule = schedule
        self.source = source
        self.requires_grad_(False)
        self.eval()

    @property
    def scaling_factor(self) -> float:
        """z = E(x) * scaling_factor."""
        return float(self.vae.config.scaling_factor)

    @property
    def vae_factor(self) -> int:
        """Image pixels per latent pixel along one side: 8 for Stable Diffusion, 4 for the tiny backbone."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def size_multiple(self) -> int:
        """Image sides must be multiples of this: the VAE's factor times the U-Net's."""
        return int(self.vae_factor * 2 ** (len(self.unet.config.block_out_channels) - 1))

    @torch.no_grad()
    def encode_prompts(self, prompts: list[str]) -> Tensor:
        """Return text features (B, L, D) of B prompts; each distinct one once, in the precision of the weights."""
        distinct = list(dict.fromkeys(prompts))
        tokens = self.tokenizer(
            distinct, padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        with torch.autocast(self.text_encoder.device.type, enabled=False):
            features = self.text_encoder(tokens.input_ids.to(self.text_encoder.device))[0]
        return features[[distinct.index(prompt) for prompt in prompts]]

    def text_encoder_key(self) -> str:
        """Return the name under which this text encoder's features may be kept: every bit of what makes them."""
        return encoder_key(self.text_encoder, self.tokenizer)

    def fingerprint(self) -> str:
        """Return 16 hex digits that identify the frozen weights (names, shapes and signs), whatever their dtype on load."""
        return fingerprint_of(self)


def fingerprint_of(network: nn.Module, *texts: str) -> str:
    """Return 16 hex digits that identify the weights of ``network`` (names, shapes and signs), and ``texts``."""
    digest = hashlib.sha256()
    for name, weight in sorted(network.named_parameters()):
        # Signs survive rounding to any floating type (underflow keeps them too), and no training leaves all of them as they were.
        signs = torch.signbit(weight.detach().flatten()[:: max(1, weight.numel() // 4096)]).cpu().numpy()
        # transformers 5 dropped the text encoder's prefix: the same file has either name.
        digest.update(f"{name.replace('text_model.', '')}{tuple(weight.shape)}".encode() + np.packbits(signs).tobytes())
    for text in texts:
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def load_backbone(
    *,
    sources: list[str],
    dtype: DType = "float32",
    prediction_type: PredictionType | None = None,
    revision: str | None = None,
    variant: str | None = None,
    local_files_only: bool = False,
) -> Backbone:
    """Load a Stable-Diffusion-1.x/2.x-style model in diffusers layout.

    Args:
        sources: tried in order: local folders, then repositories on the hub ("owner/name"); the first that has the model wins.
            ``embedded:tiny`` is the model inside this package.
        dtype: of the frozen weights.
        prediction_type: overrides the scheduler configuration's.
        revision, variant: of a hub repository ("fp16" files are the variant "fp16").
        local_files_only: never ask the hub; use its local cache only.

    Raises:
        UserError: if no source has the model; the message lists every source and what was wrong with it.
    """
    torch_dtype = getattr(torch, dtype, None)
    if not isinstance(torch_dtype, torch.dtype):
        raise UserError(f"backbone.loader.dtype={dtype} is no floating type: use float32, bfloat16 or float16")
    load = PartLoader(revision=revision, variant=variant, local_files_only=local_files_only)
    source = resolve_source(sources, load)
    schedule = NoiseSchedule.from_config(load.json(source, "scheduler/scheduler_config.json"), prediction_type=prediction_type)
    return Backbone(
        vae=load(AutoencoderKL, source, Part.VAE, torch_dtype),
        unet=load(UNet2DConditionModel, source, Part.UNET, torch_dtype),
        text_encoder=load(CLIPTextModel, source, Part.TEXT_ENCODER, torch_dtype),
        tokenizer=load.tokenizer(source),
        schedule=schedule,
        source=source_name(source),
    )


def save_backbone(backbone: Backbone, folder: Path, *, dtype: torch.dtype = torch.float16) -> None:
    """Write the backbone to ``folder`` in diffusers layout (safetensors of ``dtype``), readable by diffusers and :func:`load_backbone`.

    The backbone itself keeps its precision, and a part of an earlier model in ``folder`` is replaced whole.
    """
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part, module in ((Part.VAE, backbone.vae), (Part.UNET, backbone.unet), (Part.TEXT_ENCODER, backbone.text_encoder)):
        copy.deepcopy(module).to(dtype).save_pretrained(unfinished / part)
    backbone.tokenizer.save_pretrained(unfinished / "tokenizer")
    _save_vocabulary(backbone.tokenizer, unfinished / "tokenizer")
    backbone.schedule.save(unfinished / "scheduler")
    folder.mkdir(parents=True, exist_ok=True)
    for written in sorted(unfinished.iterdir()):
        shutil.rmtree(folder / written.name, ignore_errors=True)
        written.replace(folder / written.name)
    unfinished.rmdir()


def _save_vocabulary(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write ``vocab.json`` and ``merges.txt`` too: transformers before 5 reads these and not ``tokenizer.json``."""
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    (folder / "vocab.json").write_text(json.dumps(tokenizer.get_vocab(), ensure_ascii=False))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{first} {second}\n" for first, second in merges))
