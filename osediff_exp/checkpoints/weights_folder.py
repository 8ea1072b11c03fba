"""A folder of a generator's own tensors, whatever the method: ``weights.safetensors``, and ``osediff.json`` with the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors.torch import save_file

from osediff_exp.checkpoints.base import Call, Exported, Loaded, assemble
from osediff_exp.checkpoints.files import read_tensors, write_folder, write_record
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import DType

FILE = "weights.safetensors"


def load_weights_folder(folder: Path, record: Mapping[str, Any], call: Call) -> Loaded:
    """Return what the folder restores with; bit for bit the tensors that were exported (as float32).

    Raises:
        UserError: if its file or its backbone do not belong to the settings.
    """
    return assemble(
        record["config"],
        read_tensors(folder / FILE),
        trained_on=record["backbone"],
        call=call,
        steps=int(record["steps"]),
        format="weights",
        hint="the folder is incomplete or mixed up, export it again",
    )


def write_weights_folder(loaded: Loaded, folder: Path, *, dtype: DType = "float32") -> Exported:
    """Write ``folder`` whole or not at all; an earlier export there is replaced. Other types than float32 round the weights.

    Raises:
        UserError: if there is nothing of the generator's own, or ``folder`` holds something that is no export.
    """
    if dtype not in get_args(DType):
        raise UserError(f"dtype={dtype} is no type of weights: use {', '.join(get_args(DType))}")
    own = loaded.generator.own_tensors()
    tensors = {name: weight.detach().cpu().to(getattr(torch, dtype)).contiguous() for name, weight in own.items()}
    if not tensors:
        raise UserError("the generator has no tensors of its own, so there is nothing to export: a merged folder is its own export")
    counts = {"num_tensors": len(tensors), "params": sum(tensor.numel() for tensor in tensors.values())}

    def write(unfinished: Path) -> None:
        save_file(tensors, unfinished / FILE, metadata={"format": "pt"})
        write_record(unfinished, loaded.record("weights") | counts)

    write_folder(folder, write)
    return Exported(**counts, fingerprint=loaded.fingerprint)
