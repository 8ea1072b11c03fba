"""What tests of networks on a frozen U-Net share: inputs, waking what starts at zero, who got gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from osediff_exp.models.backbone import Backbone
from osediff_exp.reporting.published import published_complexity


@dataclass(frozen=True)
class Inputs:
    """Latents, timesteps, text and low-quality pixels of two samples; pictures are 16 x 24."""

    z_t: Tensor
    t: Tensor
    text: Tensor
    lq: Tensor


def make_inputs(backbone: Backbone, *, seed: int = 3) -> Inputs:
    rows, factor = torch.Generator().manual_seed(seed), backbone.vae_factor
    return Inputs(
        z_t=torch.randn(2, 4, 16 // factor, 24 // factor, generator=rows),
        t=torch.tensor([17, 803]),
        text=backbone.encode_prompts(["sharp photo", "tree"]),
        lq=torch.rand(2, 3, 16, 24, generator=rows),
    )


def wake(network: nn.Module, *, seed: int = 4) -> None:
    """Give values to whatever trains and is zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.requires_grad and not parameter.any():
            parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def reached(network: nn.Module) -> set[str]:
    """Return the names of the parameters that a gradient other than zero has reached."""
    return {name for name, parameter in network.named_parameters() if parameter.grad is not None and bool(parameter.grad.any())}


def trained(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


def millions(network: nn.Module) -> float:
    """Return how many million parameters train."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad) / 1e6


def published(method: str) -> Mapping[str, float]:
    """Return a method's row of OSEDiff's Table 2."""
    return {row.method: row.figures for row in published_complexity()}[method]
