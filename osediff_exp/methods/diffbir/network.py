"""DiffBIR's IRControlNet: a copy of the prior's encoder sees the cleaned picture's latent and steers the frozen U-Net."""

from __future__ import annotations

from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from osediff_exp.models.backbone import Backbone
from osediff_exp.models.views import share_frozen


class ControlledUNet(nn.Module):
    """The prior's U-Net with IRControlNet's features added to its skips and middle (DiffBIR, section 3.2).

    The control net's first convolution sees concat(z_t, c), the weights of c starting at 0. A convolution of concatenated inputs is the
    sum of one on each: diffusers' ControlNetModel adds an embedding of the condition behind its ``conv_in``, so c has a convolution of
    its own there, without bias, in place of the embedding of pixels. Zero convolutions behind every block make step 0 the prior.

    Args:
        backbone: its U-Net is viewed and stays frozen; the control net starts from a copy of its encoder and middle.
    """

    def __init__(self, *, backbone: Backbone) -> None:
        super().__init__()
        self.unet = share_frozen(backbone.unet)
        self.control = ControlNetModel.from_unet(backbone.unet, conditioning_embedding_out_channels=(1, 1))
        self.control.controlnet_cond_embedding = condition_conv(backbone.unet)
        self.control.requires_grad_(True)

    def forward(self, z_t: Tensor, t: Tensor, prompt_embeds: Tensor, condition: Tensor) -> Tensor:
        """Return the prediction (B, C, h, w).

        Args:
            z_t: noisy latents (B, C, h, w), scaled.
            t: timesteps (B,) int64.
            prompt_embeds: text features (B, L, D).
            condition: scaled latent (the posterior's mode) of the cleaned pictures, (B, C, h, w).
        """
        skips, middle = self.control(z_t.float(), t, prompt_embeds.float(), condition.float(), return_dict=False)
        dtype = self.unet.dtype
        return self.unet(
            z_t.to(dtype),
            t,
            prompt_embeds.to(dtype),
            down_block_additional_residuals=[skip.to(dtype) for skip in skips],
            mid_block_additional_residual=middle.to(dtype),
        ).sample


def condition_conv(unet: UNet2DConditionModel) -> nn.Conv2d:
    """Return the part of an 8-channel ``conv_in`` that sees the condition, zero; the bias is the other part's."""
    conv_in = unet.conv_in
    conv = nn.Conv2d(
        unet.config.in_channels, conv_in.out_channels, conv_in.kernel_size, stride=conv_in.stride, padding=conv_in.padding, bias=False
    )
    nn.init.zeros_(conv.weight)
    return conv
