"""RAM on a tensor: what another implementation is compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models.taggers.ram.files import RAMFiles
from osediff_exp.models.taggers.ram.network import RAMOutput, resize
from osediff_exp.models.taggers.ram.prompt import RAMPrompt
from osediff_exp.models.taggers.ram.tag_list import TagList
from osediff_exp.models.taggers.ram.tagger import RAMTagger
from osediff_exp.restoration.numerics import choose_device, deterministic_numerics
from osediff_exp.runtime import machine, peak_memory_gib
from osediff_exp.tasks.tag.work import Figures, batches, write_whole

TENSOR_SUFFIXES = (".npz", ".npy", ".pt", ".pth")


def run_on_tensor(config: DictConfig, path: Path, run_dir: Path) -> Figures:
    """Send a tensor (B, 3, H, W), already normalised, through the configuration's RAM; leave ``logits`` (B, tags) before the sigmoid and
    ``image_embeds`` (B, 145, 512), float32, in an ``.npz``. Another size than the network's is resized. No tag list is needed.

    Raises:
        UserError: the prompt is not RAM's, or the file holds no such tensor.
    """
    if not str(config.prompt.extractor["_target_"]).endswith(RAMPrompt.__name__):
        raise UserError(f"input={path} is a tensor, which RAM alone takes: add prompt=ram prompt.weights=FILE")
    prompt = config.prompt
    network = RAMFiles(prompt.weights, prompt.lora, dtype=prompt.dtype, image_size=prompt.image_size).network()
    device = choose_device(config.tag.device)
    pictures = resize(read_pictures(path), size=network.shape.image_size, antialias=prompt.antialias)
    tagger = RAMTagger(network, TagList((), ()))
    with deterministic_numerics():
        found = [tagger.look(pictures[list(part)].to(device)) for part in batches(range(len(pictures)), config.tag.batch_size)]
    outputs = RAMOutput(*(torch.cat(parts).float().cpu() for parts in zip(*found, strict=True)))
    target = Path(config.output).expanduser() if config.output else run_dir / "ram.npz"
    target = target if target.suffix == ".npz" else target.with_name(f"{target.name}.npz")
    write_whole(target, lambda file: _save(file, outputs))
    print(f"logits {tuple(outputs.logits.shape)}, image embeddings {tuple(outputs.image_embeds.shape)}: {target}")
    return {
        "num_images": len(pictures),
        "num_tags": network.shape.num_tags,
        "logits_mean": float(outputs.logits.mean()),
        "image_embeds_mean": float(outputs.image_embeds.mean()),
        "output": str(target),
        "peak_memory_gib": peak_memory_gib(str(device)),
        "machine": machine(str(device)),
    }


def _save(file: Path, outputs: RAMOutput) -> None:
    with file.open("wb") as opened:
        np.savez(opened, logits=outputs.logits.numpy(), image_embeds=outputs.image_embeds.numpy())


def read_pictures(path: Path) -> Tensor:
    """Return the first tensor (B, 3, H, W) or (3, H, W) of a ``.npz``, ``.npy`` or ``.pt`` file, as float32 (B, 3, H, W)."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True) if path.suffix in (".pt", ".pth") else np.load(path)
        values = [content[name] for name in content] if hasattr(content, "keys") else [content]
    except Exception as error:  # damaged files raise anything
        raise UserError(f"input={path} cannot be read ({type(error).__name__}): give a tensor in .npz, .npy or .pt") from error
    tensors = [torch.as_tensor(value) for value in values if getattr(value, "ndim", 0) in (3, 4)]
    pictures = next((tensor for tensor in tensors if tensor.shape[-3] == 3), None)
    if pictures is None or pictures.numel() == 0:
        raise UserError(f"input={path} holds no tensor (B, 3, H, W): give normalised pictures")
    return (pictures if pictures.ndim == 4 else pictures[None]).float()
