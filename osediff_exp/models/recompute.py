"""Checkpointing by parts: which networks compute their activations again in the backward pass and do not keep them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from osediff_exp.errors import UserError, nearest

Part = Literal["encoder", "unet", "decoder"]
Recomputed = bool | Sequence[Part]
"""True: every part; False: none; or the parts by name."""


def recompute(which: Recomputed, *, vae: nn.Module, unet: nn.Module) -> None:
    """Let these parts of a diffusers VAE and U-Net keep the inputs of their blocks only; the gradients are the same to the bit.

    Raises:
        UserError: there is no such part.
    """
    parts = which if not isinstance(which, bool) else get_args(Part) if which else ()
    for part in parts:
        if part not in get_args(Part):
            names = ", ".join(get_args(Part))
            raise UserError(f"generator.gradient_checkpointing: '{part}' is none of {names}.{nearest(part, get_args(Part))}")
    if "unet" in parts:
        unet.enable_gradient_checkpointing()  # type: ignore[operator]
    if not {"encoder", "decoder"}.isdisjoint(parts):
        vae.enable_gradient_checkpointing()  # type: ignore[operator]
    for part in {"encoder", "decoder"}.difference(parts):
        for module in getattr(vae, part).modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = False  # type: ignore[assignment]
