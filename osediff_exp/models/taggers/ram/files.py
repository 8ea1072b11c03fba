"""RAM's weights on disk: where they are, what they are called, and the network that they make."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch

from osediff_exp.errors import UserError, nearest
from osediff_exp.models.backbone import DType
from osediff_exp.models.places import find_file
from osediff_exp.models.prompt_cache.fingerprints import weights_key
from osediff_exp.models.taggers.ram.layout import build_ram, read_tensors
from osediff_exp.models.taggers.ram.network import RAM
from osediff_exp.models.taggers.ram.shape import IMAGE_SIZE


class RAMFiles:
    """Weights on disk, found but not read before they are needed.

    Raises:
        UserError: a file is nowhere, or there is no such precision.
    """

    def __init__(self, weights: str, lora: str | None, *, dtype: DType = "float32", image_size: int = IMAGE_SIZE) -> None:
        if dtype not in get_args(DType):
            raise UserError(f"prompt.dtype={dtype} is unknown: use {', '.join(get_args(DType))}.{nearest(dtype, get_args(DType))}")
        self.weights = find_file(weights, "prompt.weights")
        self.lora = None if lora is None else find_file(lora, "prompt.lora")
        self.dtype, self.image_size = dtype, image_size

    def beside(self, name: str, key: str) -> Path:
        """Return a file of the user's that may lie beside the weights."""
        neighbour = self.weights.parent / Path(name).name
        return neighbour if not Path(name).expanduser().is_file() and neighbour.is_file() else find_file(name, key)

    def network(self) -> RAM:
        """Read the weights and return the network, with LoRA merged."""
        lora = {} if self.lora is None else {"lora": read_tensors(self.lora), "lora_origin": str(self.lora)}
        return build_ram(
            read_tensors(self.weights),
            image_size=self.image_size,
            dtype=getattr(torch, self.dtype),
            origin=str(self.weights),
            **lora,  # type: ignore[arg-type]
        )

    def described(self) -> dict[str, str | int | None]:
        """Return what decides the network's answers, as plain data."""
        return {
            "tagger": "RAM" if self.lora is None else f"RAM with {self.lora.name}",
            "weights": weights_key(self.weights),
            "lora": None if self.lora is None else weights_key(self.lora),
            "dtype": self.dtype,
            "image_size": self.image_size,
        }
