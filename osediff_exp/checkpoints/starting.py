"""Start a training from a checkpoint's weights: another thing than resuming, which goes on with optimizers and step counter too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from osediff_exp.checkpoints.fitting import fill
from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Generator

_SCALES = ("unet_rank", "vae_rank", "unet_alpha", "vae_alpha", "lora_alpha")
_PARTS = {  # the setting that trains a part: how the names of its tensors begin
    "train_vae_encoder": ("vae.encoder.", "vae.quant_conv."),
    "train_vae_decoder": ("vae.decoder.", "vae.post_quant_conv."),
    "train_unet": ("unet.",),
    "train_conv_in": ("unet.conv_in.base_layer.",),
}


def start_from(
    source: str | Path, generator: Generator, backbone: Backbone, settings: Mapping[str, Any], *, packages: Sequence[str] = ()
) -> int:
    """Copy the trained tensors of the checkpoint ``source`` into ``generator``; return the steps behind them.

    A part that trains here and did not in the checkpoint's run (the decoder, say) begins as initialised: its LoRA adds nothing yet.

    Args:
        source: whatever :func:`~osediff_exp.checkpoints.loading.load_checkpoint` takes; its moving average where it has one.
        backbone: the generator's, which must be the checkpoint's.
        settings: the generator's configuration as plain data, to name a difference by its key.
        packages: whose code the checkpoint may name, as there.

    Raises:
        UserError: another backbone, or other layers, ranks or factors than the generator's; nothing is copied then.
    """
    try:
        loaded = load_checkpoint(source, backbone=backbone, packages=packages)
    except UserError as error:
        raise UserError(f"init={source}: {error}; or start from nothing with init=null") from error
    theirs = loaded.config.get("generator", {})
    for key in _SCALES:
        own, given = settings.get(key), theirs.get(key)
        if own is not None and given is not None and own != given:
            raise UserError(f"init={source} has {key}={given}, this run generator.{key}={own}: set generator.{key}={given}, or init=null")
    saved, own = loaded.generator.own_tensors(), generator.own_tensors()
    added = [key for key in _PARTS if settings.get(key) and theirs.get(key) is False]
    begins = tuple(prefix for key in added for prefix in _PARTS[key])
    saved |= {name: tensor for name, tensor in own.items() if name not in saved and name.startswith(begins)}
    fill(generator, saved, hint=f"give init={source} the generator settings of its run, or set init=null")
    return loaded.steps
