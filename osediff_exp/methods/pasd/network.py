"""PASD's network: the frozen U-Net, a control net on low-quality pixels, and attentions on its features in the up blocks."""

from __future__ import annotations

import torch
from diffusers import ControlNetModel, Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from osediff_exp.methods.added_attention import (
    AddedAttention,
    Place,
    add_attention,
    attention_like,
    looking_at,
    reads_text,
    silent_attention,
)
from osediff_exp.methods.pasd.degradation_removal import DegradationRemoval, Removed
from osediff_exp.methods.pixel_control import control, control_net, embedding_widths
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.views import share_frozen


class PASDNetwork(nn.Module):
    """eps(z_t; t, c_y, x_L) (paper, section 3.3): each feature of the control net is used twice.

    It is added to the U-Net's skip, and it is the keys and values of a Transformer in the layer of the up blocks that this skip goes to:
    after the layer's text attention, or after its residual block where an up block has no text attention. Trained are the control net and
    these attentions (the released ``pixel_attentions``).

    Departures from the released code: the added attentions start silent (their last projection is zero; released: as PyTorch initialises
    a layer), so that training starts from the frozen prior; pixels are embedded once a picture, not once a step, with equal results.

    Args:
        backbone: frozen; its U-Net is viewed, not copied.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
    """

    def __init__(self, *, backbone: Backbone, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.unet = share_frozen(backbone.unet)
        self.control_net, _ = control_net(backbone.unet, vae_factor=backbone.vae_factor)
        with torch.device(backbone.unet.device):
            widths, channels = embedding_widths(backbone.vae_factor), self.control_net.conv_in.out_channels
            self.embedding = DegradationRemoval(widths=widths, num_channels=channels)
            add_pixel_attentions(self.unet, feature_widths(self.control_net))
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            self.control_net.enable_gradient_checkpointing()
            for block in self.unet.up_blocks:  # what is recomputed must not read keys that a later call may have changed
                block.gradient_checkpointing = getattr(block, "has_cross_attention", False)

    @property
    def pixel_attentions(self) -> list[AddedAttention]:
        """The added attentions in the order in which they compute, with the layers that they follow."""
        return [module for module in self.unet.up_blocks.modules() if isinstance(module, AddedAttention)]

    def embed(self, lq: Tensor) -> Removed:
        """Return the embedded pixels (B, C, h, w) of ``lq`` (B, 3, H, W) in [0, 1], and the pictures read off on the way."""
        return self.embedding(lq.to(next(self.embedding.parameters())))

    def forward(self, z_t: Tensor, t: Tensor, text: Tensor, condition: Tensor) -> Tensor:
        """Return the U-Net's prediction (B, C, h, w), in its precision.

        Args:
            z_t: noisy latents (B, C, h, w), scaled.
            t: timesteps (B,) or a scalar.
            text: (B, L, D).
            condition: the embedding that :meth:`embed` returns.
        """
        own = self.unet.conv_in.weight.dtype
        z_t, text = z_t.to(own), text.to(own)
        skips, middle = control(self.control_net, z_t, t, text, condition)
        with looking_at(self.pixel_attentions, [skip.flatten(2).transpose(1, 2) for skip in reversed(skips)]):
            return self.unet(z_t, t, text, down_block_additional_residuals=skips, mid_block_additional_residual=middle).sample


def feature_widths(network: ControlNetModel) -> list[int]:
    """Return the channels of the control net's features, in the order of the U-Net's skips."""
    return [layer.out_channels for layer in network.controlnet_down_blocks]


def add_pixel_attentions(unet: UNet2DConditionModel, widths: list[int]) -> None:
    """Add to each layer of a view's up blocks an attention on the feature of its skip; the last skip goes to the first layer.

    Args:
        widths: channels of the features, in the order of the skips.
    """
    remaining = list(widths)
    for level, block in enumerate(unet.up_blocks):
        texts = list(block.attentions) if reads_text(block) else []
        for k in range(len(block.resnets)):
            width = remaining.pop()
            if k < len(texts):
                add_attention(Place(block.attentions, k), attention_like(texts[k], width=width))
            else:
                add_attention(Place(block.resnets, k), _attention_at(unet, level, width=width))


def _attention_at(unet: UNet2DConditionModel, level: int, *, width: int) -> Transformer2DModel:
    """Return an attention of the sizes that the U-Net's configuration gives to this up block, which has none itself."""
    config = unet.config

    def here(value: object) -> int:
        return value[::-1][level] if isinstance(value, list | tuple) else value  # type: ignore[return-value]

    channels = here(config.block_out_channels)
    heads = here(config.num_attention_heads or config.attention_head_dim)  # diffusers' name for the number of heads, of old
    return silent_attention(
        num_attention_heads=heads,
        attention_head_dim=channels // heads,
        in_channels=channels,
        num_layers=here(config.transformer_layers_per_block),
        cross_attention_dim=width,
        norm_num_groups=config.norm_num_groups,
        use_linear_projection=config.use_linear_projection,
        upcast_attention=config.upcast_attention,
    )
