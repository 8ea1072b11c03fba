"""Do saved tensors belong to these networks? Everything is checked before anything is copied: nothing is loaded by halves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Generator

HINT = "use the generator and loss settings of its run's config.yaml"


def trained_tensors(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that train, by name."""
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}


def check_tensors(saved: Mapping[str, Any], own: Mapping[str, Tensor], *, hint: str = HINT) -> None:
    """Raise UserError unless ``saved`` has the names and shapes of ``own``; the message names the first odd one and counts them."""
    if strange := sorted(str(name) for name, value in saved.items() if not isinstance(value, Tensor)):
        raise UserError(f"the checkpoint's {strange[0]} is no tensor ({len(strange)} such entries): the file is damaged, or no checkpoint")
    differing = [
        f"{name} {tuple(saved[name].shape)} in the checkpoint, {tuple(own[name].shape)} here"
        for name in saved.keys() & own.keys()
        if saved[name].shape != own[name].shape
    ]
    if differing:
        raise UserError(f"the checkpoint has another shape: {sorted(differing)[0]} ({len(differing)} such tensors); {hint}")
    odd = sorted(saved.keys() ^ own.keys())
    if odd:
        side = "the checkpoint lacks" if odd[0] in own else "this configuration lacks"
        raise UserError(f"the checkpoint does not fit: {side} {odd[0]} ({len(odd)} such tensors); {hint}")


def check_fingerprint(saved: Mapping[str, Any], backbone: Backbone, fingerprint: str) -> None:
    """Raise UserError unless ``saved`` (``fingerprint``, ``source``) names the backbone here, whose fingerprint is given."""
    if saved["fingerprint"] != fingerprint:
        raise UserError(
            f"the checkpoint was trained on another backbone ({saved.get('source')}, fingerprint {saved['fingerprint']}; here "
            f"{backbone.source}, {fingerprint}): set backbone to the one of its config.yaml"
        )


@torch.no_grad()
def fill(generator: Generator, saved: Mapping[str, Any], *, hint: str = HINT) -> None:
    """Copy ``saved`` into the generator's own tensors; UserError where they do not fit, and then nothing is copied."""
    own = generator.own_tensors()
    check_tensors(saved, own, hint=hint)
    for name, parameter in own.items():
        parameter.copy_(saved[name])
