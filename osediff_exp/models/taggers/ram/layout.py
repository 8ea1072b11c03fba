"""The released checkpoints: reading them, sorting their keys, and translating between their names and the network's.

``ram_swin_large_14m.pth`` is ``{"model": tensors}`` and holds a captioner too; ``DAPE.pth`` is a dictionary of LoRA matrices. timm keeps
the reduction between two Swin stages with the second of them, the released code with the first: the one name that differs.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models.taggers.ram.lora import lora_layers, merge
from osediff_exp.models.taggers.ram.network import RAM
from osediff_exp.models.taggers.ram.shape import HEAD_HEADS, IMAGE_SIZE, RAMShape

log = logging.getLogger(__name__)

_TAGGING = ("visual_encoder.", "tagging_head.", "wordvec_proj.", "image_proj.", "fc.", "label_embed")
_RECOMPUTED = (".relative_position_index", ".attn_mask")  # follow from the window's size
_LORA = (".lora_A", ".lora_B")
_WRAPPERS = ("model", "state_dict", "params")


@dataclass(frozen=True)
class Sorted:
    """A checkpoint's tensors by what they are for; ``left_out`` counts the others by the module that they belong to."""

    tagging: dict[str, Tensor]
    lora: dict[str, Tensor]
    left_out: dict[str, int]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a checkpoint (``.pth``, ``.pt`` or ``.safetensors``) weights-only, on the CPU, under its released names.

    Raises:
        UserError: there is no such file, or it holds no tensors by name.
    """
    try:
        content = _load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except Exception as error:  # a damaged archive can raise anything
        raise UserError(f"{path} cannot be read as weights ({_first_line(error)}): is the download complete?") from error
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
            break
    if not isinstance(content, Mapping) or not (tensors := {k: v for k, v in content.items() if isinstance(v, Tensor)}):
        raise UserError(f"{path} holds no tensors by name: give ram_swin_large_14m.pth or DAPE.pth")
    return {name.removeprefix("module.").replace("vision_multi", "tagging_head"): tensor for name, tensor in tensors.items()}


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    with path.open("rb") as file:
        is_archive = file.read(2) == b"PK"
    # Mapped: of the five gigabytes only the tagger's tensors are ever read.
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)


def sort_keys(tensors: Mapping[str, Tensor], origin: str) -> Sorted:
    """Tell a checkpoint's tensors apart; every one is accounted for, and those left out are named in the log.

    Raises:
        UserError: it is RAM++'s.
    """
    if "reweight_scale" in tensors:
        raise UserError(f"{origin} are weights of RAM++, another network: give RAM's ram_swin_large_14m.pth")
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith(_TAGGING) and not name.endswith(_RECOMPUTED)}
    lora = {name: tensor for name, tensor in kept.items() if name.endswith(_LORA)}
    others = (name for name in tensors if not name.startswith(_TAGGING))
    left_out = dict(Counter(name.partition(".")[0] for name in others))
    if left_out:
        listed = ", ".join(f"{module} ({count} tensors)" for module, count in sorted(left_out.items()))
        log.info("%s: left out, no part of tagging: %s", origin, listed)
    return Sorted({name: tensor for name, tensor in kept.items() if name not in lora}, lora, left_out)


def build_ram(
    weights: Mapping[str, Tensor],
    lora: Mapping[str, Tensor] | None = None,
    *,
    image_size: int = IMAGE_SIZE,
    head_heads: int = HEAD_HEADS,
    dtype: torch.dtype = torch.float32,
    origin: str = "the weights",
    lora_origin: str = "the LoRA weights",
) -> RAM:
    """Return the frozen network of a checkpoint's tensors, with LoRA (its own, or ``lora``) merged.

    Args:
        weights: tensors of RAM under their released names.
        lora: tensors of DAPE; None: what LoRA ``weights`` hold themselves.
        image_size, head_heads: what weights do not tell.
        dtype: in which the network keeps its weights and computes.
        origin, lora_origin: what messages call the two.

    Raises:
        UserError: a tensor is missing, superfluous or of another shape.
    """
    own = sort_keys(weights, origin)
    adapters = own.lora if lora is None else _only_lora(sort_keys(lora, lora_origin), lora_origin)
    network = RAM(RAMShape.of(own.tagging, image_size=image_size, head_heads=head_heads))
    _fill(network, merge(own.tagging, adapters), origin)
    return network.to(dtype).requires_grad_(False).eval()


def _only_lora(found: Sorted, origin: str) -> dict[str, Tensor]:
    if not found.lora:
        raise UserError(f"{origin} hold no LoRA of the tagger (LAYER.lora_A): give DAPE.pth, or none for RAM itself")
    return found.lora


def _fill(network: RAM, tensors: Mapping[str, Tensor], origin: str) -> None:
    named = {to_timm(name): tensor for name, tensor in tensors.items()}
    wanted = network.state_dict()
    missing, unknown = sorted(wanted.keys() - named.keys()), sorted(named.keys() - wanted.keys())
    misfits = sorted(name for name in wanted.keys() & named.keys() if wanted[name].shape != named[name].shape)
    if missing or unknown or misfits:
        faults = [f"{len(names)} {what} ({from_timm(names[0])})" for names, what in _faults(missing, unknown, misfits) if names]
        raise UserError(f"{origin} are not the tagger's: {', '.join(faults)}: give RAM's ram_swin_large_14m.pth")
    network.load_state_dict(named)


def _faults(missing: list[str], unknown: list[str], misfits: list[str]) -> list[tuple[list[str], str]]:
    return [(missing, "tensors are missing"), (unknown, "are unknown"), (misfits, "have another shape")]


def lora_tensors(network: RAM) -> dict[str, Tensor]:
    """Return the LoRA of an adapted network as ``DAPE.pth`` names it."""
    parts = {from_timm(name): part for name, part in lora_layers(network).items()}
    return {f"{name}.{key}": tensor.detach().cpu().float() for name, part in parts.items() for key, tensor in part.named_parameters()}


def load_lora(network: RAM, tensors: Mapping[str, Tensor], origin: str) -> None:
    """Put released LoRA matrices into an adapted network, to go on training them.

    Raises:
        UserError: they are of another rank, or not those of this network.
    """
    found, wanted = _only_lora(sort_keys(tensors, origin), origin), lora_tensors(network)
    if found.keys() != wanted.keys() or any(found[name].shape != wanted[name].shape for name in wanted):
        raise UserError(f"{origin} is not the LoRA of this network, or has another rank: set pretrain.dape.rank to its own")
    with torch.no_grad():
        for layer, part in lora_layers(network).items():
            for key, parameter in part.named_parameters():
                parameter.copy_(found[f"{from_timm(layer)}.{key}"])


def to_timm(name: str) -> str:
    """Return timm's name for a tensor (or layer) of the released layout."""
    return re.sub(r"^visual_encoder\.layers\.(\d+)\.downsample", lambda m: f"visual_encoder.layers.{int(m[1]) + 1}.downsample", name)


def from_timm(name: str) -> str:
    """Return the released name of a tensor (or layer) of the network."""
    return re.sub(r"^visual_encoder\.layers\.(\d+)\.downsample", lambda m: f"visual_encoder.layers.{int(m[1]) - 1}.downsample", name)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
