"""The U-Net of ResShift and SinSR: the prior's architecture with the low-quality latent beside the noisy one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from osediff_exp.models.backbone import Backbone


def own_unet(backbone: Backbone, *, from_scratch: bool) -> UNet2DConditionModel:
    """Return a trainable float32 U-Net of the prior's size with twice its input channels.

    Args:
        from_scratch: with new weights, as published; False: with the prior's, the new input channels' being zero.
    """
    channels = backbone.unet.config.in_channels
    if from_scratch:
        unet: Any = UNet2DConditionModel.from_config({**backbone.unet.config, "in_channels": 2 * channels})
    else:
        unet = copy.deepcopy(backbone.unet).float()
        unet.conv_in = widened(unet.conv_in, channels)
        unet.register_to_config(in_channels=2 * channels)
    return unet.requires_grad_(True).eval()


def widened(conv: nn.Conv2d, more: int) -> nn.Conv2d:
    """Return ``conv`` with ``more`` input channels of weight 0: at the start it computes what it did."""
    wide = copy.deepcopy(conv)
    wide.in_channels += more
    wide.weight = nn.Parameter(torch.cat([conv.weight.detach(), torch.zeros_like(conv.weight[:, :1]).repeat(1, more, 1, 1)], dim=1))
    return wide


def call_unet(unet: UNet2DConditionModel, scaled: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """Return the U-Net's z_0 (B, C, h, w), float32, for the scaled z_t and y, both (B, C, h, w).

    Args:
        t: (B,), the paper's 1..T; the U-Net is told t - 1, as in the released code.
    """
    no_text = scaled.new_zeros(len(scaled), 1, unet.config.cross_attention_dim)
    return unet(torch.cat([scaled, y], dim=1), t - 1, no_text).sample.float()
