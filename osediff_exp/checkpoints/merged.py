"""A whole model in diffusers layout with the LoRA multiplied out: nothing but diffusers (or load_checkpoint) is needed to use it.

The U-Net and the VAE's encoder are no longer the original ones; the decoder is, unless it was trained. ``osediff.json`` says at which
timestep and with which prompts the folder restores.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import diffusers
import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from osediff_exp.checkpoints.base import Call, Exported, Loaded, assemble
from osediff_exp.checkpoints.files import write_folder, write_record
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone, DType, load_backbone, save_backbone
from osediff_exp.models.views import share_frozen

_UNTRAINED = {"unet_rank": 0, "vae_rank": 0, "train_unet": False, "train_vae_encoder": False, "train_vae_decoder": False}
_PIPELINE = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "DDPMScheduler"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}


def load_merged_folder(folder: Path, record: Mapping[str, Any], call: Call) -> Loaded:
    """Return what a merged folder restores with: it is its own backbone, whatever the call says of one.

    Raises:
        UserError: if its files are damaged or not those that were written.
    """
    config = dict(record["config"])
    config["backbone"] = config["backbone"] | {"loader": config["backbone"]["loader"] | {"sources": [str(folder)]}}
    call = replace(call, backbone=None, sources=None)
    return assemble(config, {}, trained_on=record["backbone"], call=call, steps=int(record["steps"]), format="merged")


def write_merged_folder(loaded: Loaded, folder: Path, *, dtype: DType = "float32") -> Exported:
    """Write ``folder`` whole or not at all; an earlier export there is replaced.

    Args:
        dtype: of the weights; float32 keeps what merging computed, the others round it.

    Raises:
        UserError: if ``dtype`` is none of these, or ``folder`` holds something that is no export.
    """
    if dtype not in get_args(DType):
        raise UserError(f"dtype={dtype} is no type of weights: use {', '.join(get_args(DType))}")
    merged = merged_backbone(loaded)
    parameters = list(merged.parameters())
    counts = {"num_tensors": len(parameters), "params": sum(parameter.numel() for parameter in parameters)}
    fingerprint = merged.fingerprint()

    def write(unfinished: Path) -> None:
        save_backbone(merged, unfinished, dtype=getattr(torch, dtype))
        (unfinished / "model_index.json").write_text(json.dumps(_PIPELINE | {"_diffusers_version": diffusers.__version__}, indent=2) + "\n")
        write_record(unfinished, _record(loaded, fingerprint, dtype) | counts)

    write_folder(folder, write)
    return Exported(**counts, fingerprint=fingerprint)


def _record(loaded: Loaded, fingerprint: str, dtype: DType) -> dict[str, Any]:
    """Return the folder's description: its own fingerprint, the original backbone's beside it, and settings that train nothing."""
    record = loaded.record("merged")
    config = record["config"]
    loader = {"_target_": f"{load_backbone.__module__}.{load_backbone.__qualname__}", "sources": ["."], "dtype": dtype}
    config["backbone"] = config["backbone"] | {"loader": loader}
    config["generator"] = config["generator"] | _UNTRAINED
    return record | {"merged_from": record["backbone"], "backbone": {"fingerprint": fingerprint, "source": loaded.backbone.source}}


def merged_backbone(loaded: Loaded) -> Backbone:
    """Return a backbone that computes without LoRA what the generator computes with it; untouched weights are shared."""
    generator, backbone = loaded.one_step_generator("merged"), loaded.backbone
    return Backbone(
        vae=_merged(backbone.vae, generator.vae),
        unet=_merged(backbone.unet, generator.unet),
        text_encoder=backbone.text_encoder,
        tokenizer=backbone.tokenizer,
        schedule=backbone.schedule,
        source=backbone.source,
    )


@torch.no_grad()
def _merged(frozen: nn.Module, adapted: nn.Module) -> nn.Module:
    """Return a view of ``frozen`` with the weights of ``adapted``, LoRA multiplied out, in float32, wherever that has LoRA."""
    view = share_frozen(frozen)
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer):
            base: Any = layer.get_base_layer()
            plain: Any = view.get_submodule(name)
            plain.weight = nn.Parameter(_merged_weight(layer, base.weight), requires_grad=False)
            if base.bias is not None:  # conv_in's is trained
                plain.bias = nn.Parameter(base.bias.detach().clone(), requires_grad=False)
    return view


def _merged_weight(layer: Any, weight: Tensor) -> Tensor:
    """Return W + scale B A of a LoRA layer."""
    for adapter in layer.lora_A:
        weight = weight.float() + layer.get_delta_weight(adapter).float()
    return weight
