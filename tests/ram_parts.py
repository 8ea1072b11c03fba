"""A small random RAM: Swin of two stages at 32 px, a head of two layers, six tags; its weights under the released names."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from osediff_exp.models.taggers.ram.layout import from_timm, lora_tensors
from osediff_exp.models.taggers.ram.lora import add_lora
from osediff_exp.models.taggers.ram.network import RAM
from osediff_exp.models.taggers.ram.shape import RAMShape

SHAPE = RAMShape(
    embed_dim=8,
    depths=(2, 2),
    num_heads=(2, 4),
    window=4,
    image_size=32,
    num_tags=6,
    embed_width=12,
    head_width=16,
    head_layers=2,
    head_inner=24,
)
TAGS = ("bird", "cat", "dog", "house", "sea", "tree")


def random_weights(shape: RAMShape = SHAPE, *, seed: int = 0, tags: int | None = None) -> dict[str, Tensor]:
    """Return weights large enough that pictures differ, under released names."""
    generator = torch.Generator().manual_seed(seed)
    wanted = RAM(shape).state_dict()
    weights = {from_timm(name): 0.3 * torch.randn(tensor.shape, generator=generator) for name, tensor in wanted.items()}
    for name in weights:
        if name.endswith(("norm.weight", "norm1.weight", "norm2.weight", "LayerNorm.weight")):
            weights[name] += 1
    return weights | ({"label_embed": torch.randn(tags, shape.embed_width, generator=generator)} if tags else {})


def random_lora(shape: RAMShape = SHAPE, *, seed: int = 1, rank: int = 8) -> dict[str, Tensor]:
    """Return LoRA matrices under released names, none of them zero."""
    network = RAM(shape)
    add_lora(network, rank=rank)
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.5 * torch.randn(tensor.shape, generator=generator) for name, tensor in lora_tensors(network).items()}


def write_ram(folder: Path, *, seed: int = 0, threshold: float = 0.5) -> Path:
    """Write the files that a user brings along, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": random_weights(seed=seed)}, folder / "ram_swin_large_14m.pth")
    torch.save(random_lora(), folder / "DAPE.pth")
    (folder / "ram_tag_list.txt").write_text("".join(f"{name}\n" for name in TAGS))
    (folder / "ram_tag_list_threshold.txt").write_text(f"{threshold}\n" * len(TAGS))
    return folder
