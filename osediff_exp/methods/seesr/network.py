"""SeeSR's network: the frozen U-Net, a control net on low-quality pixels, and attentions on image tokens in both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from osediff_exp.methods.added_attention import AddedAttention, add_attention, attention_like, looking_at, text_attentions
from osediff_exp.methods.pixel_control import control, control_net
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.views import share_frozen


class SeeSRNetwork(nn.Module):
    """eps(z_t; t, c_y, x_L, c_x): c_y text features, x_L the low-quality picture, c_x the tagger's image tokens (paper, section 3.3).

    After each text attention of the U-Net, and of the control net, stands one more Transformer whose keys and values are image tokens
    (the released ``image_attentions``). Trained are these and the control net.

    Departures from the released code: the added attentions start silent (their last projection is zero; released: as PyTorch initialises
    a layer), so that training starts from the frozen prior; pixels are embedded once a picture, not once a step, with equal results.

    Args:
        backbone: frozen; its U-Net is viewed, not copied.
        token_width: channels of the image tokens: 512 for RAM and DAPE.
        gradient_checkpointing: recompute activations in the backward pass to save memory.
    """

    def __init__(self, *, backbone: Backbone, token_width: int = 512, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.unet = share_frozen(backbone.unet)
        self.control_net, self.embedding = control_net(backbone.unet, vae_factor=backbone.vae_factor)
        with torch.device(backbone.unet.device):
            for network in (self.unet, self.control_net):
                for place in text_attentions(network):
                    add_attention(place, attention_like(place.layer, width=token_width))
        if gradient_checkpointing:
            self.unet.enable_gradient_checkpointing()
            self.control_net.enable_gradient_checkpointing()

    @property
    def image_attentions(self) -> list[AddedAttention]:
        """The added attentions of U-Net and control net, with the layers that they follow."""
        return [module for module in self.modules() if isinstance(module, AddedAttention)]

    def embed(self, lq: Tensor) -> Tensor:
        """Return the embedded pixels (B, C, h, w) of ``lq`` (B, 3, H, W) in [0, 1]."""
        return self.embedding(lq.to(next(self.embedding.parameters())))

    def forward(self, z_t: Tensor, t: Tensor, text: Tensor, condition: Tensor, tokens: Tensor) -> Tensor:
        """Return the U-Net's prediction (B, C, h, w), in its precision.

        Args:
            z_t: noisy latents (B, C, h, w), scaled.
            t: timesteps (B,) or a scalar.
            text: (B, L, D).
            condition: what :meth:`embed` returns.
            tokens: (B, N, token_width).
        """
        attentions, own = self.image_attentions, self.unet.conv_in.weight.dtype
        z_t, text = z_t.to(own), text.to(own)
        with looking_at(attentions, [tokens] * len(attentions)):
            skips, middle = control(self.control_net, z_t, t, text, condition)
            return self.unet(z_t, t, text, down_block_additional_residuals=skips, mid_block_additional_residual=middle).sample
