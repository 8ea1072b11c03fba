"""A folder of LoRA weights in the formats of diffusers (U-Net) and PEFT (VAE), beside what those formats cannot hold.

    pytorch_lora_weights.safetensors   U-Net: ``pipeline.load_lora_weights(FOLDER)``, or ``unet.load_lora_adapter(FOLDER, prefix="unet",
                                       weight_name="pytorch_lora_weights.safetensors")``
    unet_conv_in.safetensors           the trained base layer: ``unet.load_state_dict(load_file(...), strict=False)``, before the LoRA
    vae_lora/                          VAE: ``PeftModel.from_pretrained(vae, FOLDER + "/vae_lora")``
    osediff.json                       settings, versions, the backbone's fingerprint

The released code's three U-Net adapters have disjoint layers and one rank and scale: as one adapter they compute the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from osediff_exp.checkpoints.base import Call, Exported, Loaded, assemble
from osediff_exp.checkpoints.files import read_tensors, write_folder, write_record
from osediff_exp.checkpoints.fitting import trained_tensors
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import DType

UNET_FILE, CONV_IN_FILE, VAE_FOLDER = "pytorch_lora_weights.safetensors", "unet_conv_in.safetensors", "vae_lora"
VAE_FILE = f"{VAE_FOLDER}/adapter_model.safetensors"
_VAE_PREFIX = "base_model.model."
_ADAPTER = re.compile(r"(\.lora_[AB])\.\w+(\.weight)$")


def place_of(name: str) -> tuple[str, str]:
    """Return the file, and the key in it, of a generator's trainable tensor."""
    part, _, rest = name.partition(".")
    if not _ADAPTER.search(rest):
        return CONV_IN_FILE, rest.replace(".base_layer", "")
    key = _ADAPTER.sub(r"\1\2", rest)
    return (UNET_FILE, f"unet.{key}") if part == "unet" else (VAE_FILE, _VAE_PREFIX + key)


def load_lora_folder(folder: Path, record: Mapping[str, Any], call: Call) -> Loaded:
    """Return what a LoRA folder restores with; bit for bit the tensors that were exported (as float32).

    Raises:
        UserError: if its files or its backbone do not belong together.
    """
    files = {name: read_tensors(folder / name) for name in (UNET_FILE, CONV_IN_FILE, VAE_FILE) if (folder / name).is_file()}

    def named(generator: nn.Module) -> dict[str, Tensor]:
        names = {place_of(name): name for name in trained_tensors(generator)}
        return {names.get((file, key), f"{key} of {file}"): tensor for file, tensors in files.items() for key, tensor in tensors.items()}

    return assemble(
        record["config"],
        named,
        trained_on=record["backbone"],
        call=call,
        steps=int(record["steps"]),
        format="lora",
        hint="the folder is incomplete or mixed up, export it again",
    )


def write_lora_folder(loaded: Loaded, folder: Path, *, dtype: DType = "float32") -> Exported:
    """Write ``folder`` whole or not at all; an earlier export there is replaced. Other types than float32 round the weights.

    Raises:
        UserError: if nothing was trained, or ``folder`` holds something that is no export.
    """
    if dtype not in get_args(DType):
        raise UserError(f"dtype={dtype} is no type of weights: use {', '.join(get_args(DType))}")
    generator = loaded.one_step_generator("lora")
    files: dict[str, dict[str, Tensor]] = {}
    for name, parameter in trained_tensors(generator).items():
        file, key = place_of(name)
        files.setdefault(file, {})[key] = parameter.detach().cpu().to(getattr(torch, dtype)).contiguous()
    if not files:
        raise UserError("the generator has no trained tensors, so there is no LoRA to export: use format=merged")
    counts = {"num_tensors": sum(map(len, files.values())), "params": sum(t.numel() for part in files.values() for t in part.values())}

    def write(unfinished: Path) -> None:
        for file, tensors in files.items():
            (unfinished / file).parent.mkdir(exist_ok=True)
            metadata = {"lora_adapter_metadata": json.dumps(_unet_metadata(generator.unet))} if file == UNET_FILE else {}
            save_file(tensors, unfinished / file, metadata={"format": "pt"} | metadata)
        if VAE_FILE in files:
            _adapter_config(generator.vae).save_pretrained(str(unfinished / VAE_FOLDER))
        write_record(unfinished, loaded.record("lora") | counts)

    write_folder(folder, write)
    return Exported(**counts, fingerprint=loaded.fingerprint)


def _adapter_config(network: nn.Module) -> LoraConfig:
    """Return one configuration for all adapters of a network: they share rank and alpha."""
    one: LoraConfig = next(iter(cast("dict[str, LoraConfig]", network.peft_config).values()))
    config = LoraConfig(r=one.r, lora_alpha=one.lora_alpha, use_rslora=one.use_rslora, inference_mode=True)
    config.target_modules = _layers(network)  # given to the constructor they become a set, which is written in another order each time
    return config


def _layers(network: nn.Module) -> list[str]:
    return sorted(name for name, layer in network.named_modules() if isinstance(layer, LoraLayer))


def _unet_metadata(unet: nn.Module) -> dict[str, Any]:
    """Return the LoRA settings as diffusers reads them from the file: without these it would take the scale to be 1."""
    config = _adapter_config(unet)
    settings: dict[str, Any] = {"r": config.r, "lora_alpha": config.lora_alpha, "use_rslora": config.use_rslora}
    return {f"unet.{name}": value for name, value in (settings | {"target_modules": _layers(unet)}).items()}
