"""``osediff.pkl``, the released code's checkpoint: read onto any backbone it fits, and written as that code reads it.

The format (released code, 2024-12): lists of module names per adapter, two ranks, and the tensors of U-Net and VAE whose names hold
"lora" (and, in the U-Net, "conv_in": the trained base layer). LoRA's alpha is PEFT's default, 8, and its scale therefore 8 / r. The
file names neither backbone nor timestep nor prompt: those come from the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from osediff_exp.checkpoints.base import Call, Exported, Loaded, assemble
from osediff_exp.checkpoints.files import check_absent, write_file
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.models.lora import add_lora, unet_targets, vae_targets
from osediff_exp.models.prompts import FixedPrompt
from osediff_exp.models.views import share_frozen

ALPHA = 8
_LISTS = {
    "unet": {f"default_{part}": f"unet_lora_{part}_modules" for part in ("encoder", "decoder", "others")},
    "vae": {"default_encoder": "vae_lora_encoder_modules"},
}
_KEYS = {key for lists in _LISTS.values() for key in lists.values()} | {"rank_unet", "rank_vae", "state_dict_unet", "state_dict_vae"}
_LORA = re.compile(r"(?P<layer>.+)\.lora_[AB]\.(?P<adapter>\w+)\.weight")
_HINT = "set backbone to the one it was trained on"


def is_released(content: Mapping[str, Any]) -> bool:
    """Tell whether a file's content is, or tries to be, the released code's checkpoint."""
    return "state_dict_unet" in content


def load_released(path: Path, content: Mapping[str, Any], *, settings: Mapping[str, Any] | None, call: Call) -> Loaded:
    """Return what an ``osediff.pkl`` restores with on the backbone of ``settings`` or on ``call.backbone``.

    With ``call.backbone`` alone the timestep is the schedule's last (999, as released) and the prompt is empty.

    Raises:
        UserError: if keys, module lists, ranks and tensors do not agree with each other or with the backbone.
    """
    tensors = _checked_tensors(path, content)
    if settings is None and call.backbone is None:
        raise UserError(f"{path} names no backbone: give settings (a configuration) or a backbone")
    config = dict(settings) if settings is not None else _released_settings(call.backbone)
    generator = dict(config.get("generator") or {})
    if generator.get("_target_") != _path(OneStepGenerator):
        raise UserError(
            f"{path} holds OSEDiff's one-step generator, the settings ask for {generator.get('_target_')}: use generator=osediff"
        )
    config["generator"] = generator | _settings(rank_unet=content["rank_unet"], rank_vae=content["rank_vae"])
    return assemble(config, tensors, trained_on=None, call=call, steps=0, format="released", hint=_HINT)


def _settings(*, rank_unet: int, rank_vae: int) -> dict[str, Any]:
    """Return the generator's settings that the format fixes."""
    ranks = {"unet_rank": rank_unet, "vae_rank": rank_vae}
    scales = {"alpha": "fixed", "unet_alpha": "fixed", "vae_alpha": "fixed", "lora_alpha": ALPHA}
    return ranks | scales | {"train_vae_encoder": True, "train_vae_decoder": False, "train_unet": True, "train_conv_in": True}


def _released_settings(backbone: Backbone | None) -> dict[str, Any]:
    assert backbone is not None
    return {
        "backbone": {"loader": {"_target_": _path(load_backbone), "sources": [backbone.source]}},
        "generator": {"_target_": _path(OneStepGenerator), "timestep": backbone.schedule.num_steps - 1},
        "prompt": {"extractor": {"_target_": _path(FixedPrompt), "prompt": ""}},
    }


def _path(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"


def _checked_tensors(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors by the generator's names, after the file has been found to agree with itself."""
    if odd := sorted(_KEYS ^ content.keys(), key=str):
        side = "lacks" if odd[0] in _KEYS else "has an unknown key"
        raise UserError(f"{path} {side} '{odd[0]}' ({len(odd)} such keys): it is no osediff.pkl of the released code")
    tensors: dict[str, Tensor] = {}
    for part, lists in _LISTS.items():
        rank, state = content[f"rank_{part}"], content[f"state_dict_{part}"]
        if not isinstance(rank, int) or rank < 1:
            raise UserError(f"{path}: rank_{part}={rank} is no LoRA rank: a whole number of at least 1 is expected")
        if not isinstance(state, Mapping):
            raise UserError(f"{path}: state_dict_{part} is a {type(state).__name__}, no dictionary of tensors: the file is damaged")
        _check_modules(path, content, state, lists)
        tensors |= {f"{part}.{name}": tensor for name, tensor in state.items()}
    return tensors


def _check_modules(path: Path, content: Mapping[str, Any], state: Mapping[str, Any], lists: Mapping[str, str]) -> None:
    """Raise UserError unless exactly the listed modules have LoRA tensors (the released code lists VAE modules several times)."""
    matches = [match for name in state if (match := _LORA.fullmatch(str(name)))]
    present = {(match["adapter"], match["layer"]) for match in matches}
    listed = {(adapter, str(layer)) for adapter, key in lists.items() for layer in content[key]}
    if odd := sorted(present ^ listed):
        adapter, layer = odd[0]
        fault = "is listed and has no tensors" if odd[0] in listed else "has tensors and is not listed"
        raise UserError(f"{path}: module {layer} of {lists.get(adapter, adapter)} {fault} ({len(odd)} such modules): the file is damaged")


def write_released(loaded: Loaded, path: Path) -> Exported:
    """Write ``path`` as the released code's own.

    Exact, but for LoRA scales other than 8 / r: their ratio is multiplied into lora_B, which rounds unless it is a power of two. A part
    without LoRA gets an adapter of rank 1 that adds zero.

    Raises:
        UserError: if the VAE's decoder is trained (the format has no place for it) or ``path`` exists.
    """
    content = released_content(loaded)
    check_absent(path)
    write_file(path, lambda unfinished: torch.save(content, unfinished))
    tensors = [*content["state_dict_unet"].values(), *content["state_dict_vae"].values()]
    return Exported(num_tensors=len(tensors), params=sum(tensor.numel() for tensor in tensors), fingerprint=loaded.fingerprint)


def released_content(loaded: Loaded) -> dict[str, Any]:
    """Return the dictionary that ``osediff.pkl`` holds."""
    generator, backbone = loaded.one_step_generator("released"), loaded.backbone
    targets = {"unet": unet_targets(backbone.unet), "vae": vae_targets(backbone.vae, encoder=True, decoder=False)}
    networks = {part: _with_lora(getattr(generator, part), getattr(backbone, part), targets[part]) for part in targets}
    if outside := sorted(set(_lora_layers(networks["vae"])) - set(targets["vae"]["default_encoder"])):
        raise UserError(f"osediff.pkl has no place for a trained VAE decoder ({outside[0]}): export format=lora or format=merged instead")
    content: dict[str, Any] = {key: targets[part][adapter] for part, lists in _LISTS.items() for adapter, key in lists.items()}
    for part, network in networks.items():
        layers = _lora_layers(network)
        content[f"rank_{part}"] = next(iter(layers.values()))[0]
        kept = ("lora", "conv_in") if part == "unet" else ("lora",)
        named = {name: weight for name, weight in network.named_parameters() if any(word in name for word in kept)}
        content[f"state_dict_{part}"] = {name: _folded(name, weight, layers) for name, weight in named.items()}
    return content


def _lora_layers(network: nn.Module) -> dict[str, tuple[int, float]]:
    """Return rank and scale of each layer that has LoRA; here a layer has one adapter."""
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, LoraLayer)}
    return {name: (next(iter(layer.r.values())), next(iter(layer.scaling.values()))) for name, layer in layers.items()}


def _with_lora(network: nn.Module, frozen: nn.Module, targets: dict[str, list[str]]) -> nn.Module:
    """Return the network, or, where it has no LoRA, one with adapters of rank 1 that add zero."""
    if _lora_layers(network):
        return network
    view = share_frozen(frozen)
    add_lora(view, targets, rank=1, alpha="fixed", lora_alpha=ALPHA)
    for name, parameter in view.named_parameters():
        if "lora_" in name:
            parameter.data.zero_()
    return view


def _folded(name: str, weight: Tensor, layers: Mapping[str, tuple[int, float]]) -> Tensor:
    """Return a float32 copy; lora_B takes in what its layer's scale differs from 8 / r."""
    copy = weight.detach().float().cpu().clone()
    match = _LORA.fullmatch(name)
    if match is None or ".lora_B." not in name:
        return copy
    rank, scale = layers[match["layer"]]
    return copy if scale == ALPHA / rank else (copy.double() * (scale * rank / ALPHA)).float()
