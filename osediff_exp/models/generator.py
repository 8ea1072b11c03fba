"""OSEDiff's generator: one denoising step between encoder and decoder."""

from __future__ import annotations

from typing import Literal

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from osediff_exp.diffusion import predict_x0
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import NOTHING, Context, Generator, GeneratorOutput, Noise
from osediff_exp.models.latents import decode_latent, posterior_of
from osediff_exp.models.lora import AlphaPolicy, add_lora, unet_targets, vae_targets
from osediff_exp.models.recompute import Recomputed, recompute
from osediff_exp.models.tiled_unet import tiled_denoise
from osediff_exp.models.views import share_frozen


class OneStepGenerator(Generator):
    """OSEDiff: x_hat = D(F(E(x_L); c_y)) with F(z) = (z - sigma_T eps_theta(z; T, c_y)) / alpha_T (paper, equations 4 and 5).

    Args:
        backbone: frozen; VAE and U-Net are viewed, not copied.
        timestep: T.
        latent: ``sample`` or ``mode`` of E's posterior where noise is given; without noise always the mode.
        unet_rank, vae_rank: LoRA ranks; alpha, lora_alpha: see :func:`osediff_exp.models.lora.lora_scale`.
        unet_alpha, vae_alpha: one network's own policy in place of ``alpha``.
        train_vae_encoder, train_vae_decoder, train_unet: which parts get LoRA (paper, Table 7).
        train_conv_in: the U-Net's base conv_in (weight and bias) trains too where the U-Net has LoRA, as in the released code.
        gradient_checkpointing: which parts recompute activations in the backward pass to save memory: all, none, or a list of names.
    """

    takes_bytes = True

    def __init__(
        self,
        *,
        backbone: Backbone,
        timestep: int,
        latent: Literal["sample", "mode"] = "sample",
        unet_rank: int = 4,
        vae_rank: int = 4,
        alpha: AlphaPolicy = "fixed",
        unet_alpha: AlphaPolicy | None = None,
        vae_alpha: AlphaPolicy | None = None,
        lora_alpha: int = 8,
        train_vae_encoder: bool = True,
        train_vae_decoder: bool = False,
        train_unet: bool = True,
        train_conv_in: bool = True,
        gradient_checkpointing: Recomputed = False,
    ) -> None:
        super().__init__()
        schedule = backbone.schedule
        if not 0 <= timestep < schedule.num_steps:
            raise UserError(f"generator.timestep={timestep} is outside the backbone's 0..{schedule.num_steps - 1}")
        if latent not in ("sample", "mode"):
            raise UserError(f"generator.latent={latent} is unknown: use sample or mode")
        self.timestep, self.latent = timestep, latent
        self.scaling_factor = backbone.scaling_factor
        self.prediction_type = schedule.prediction_type
        self._abar = schedule.abar(timestep)
        self._unet_factor = 2 ** (len(backbone.unet.config.block_out_channels) - 1)
        self.vae = share_frozen(backbone.vae)
        add_lora(
            self.vae,
            vae_targets(self.vae, encoder=train_vae_encoder, decoder=train_vae_decoder),
            rank=vae_rank,
            alpha=vae_alpha or alpha,
            lora_alpha=lora_alpha,
        )
        self.unet = self._view_unet(backbone, train_conv_in=train_unet and train_conv_in and unet_rank > 0)
        if train_unet:
            add_lora(self.unet, unet_targets(self.unet), rank=unet_rank, alpha=unet_alpha or alpha, lora_alpha=lora_alpha)
        recompute(gradient_checkpointing, vae=self.vae, unet=self.unet)

    @staticmethod
    def _view_unet(backbone: Backbone, *, train_conv_in: bool) -> UNet2DConditionModel:
        conv_in = backbone.unet.conv_in
        conv_in.requires_grad_(train_conv_in)  # so that the view gets a copy of its own
        view = share_frozen(backbone.unet)
        conv_in.requires_grad_(False)
        if train_conv_in and conv_in.weight.dtype != torch.float32:
            keep_float32(view.conv_in)
        return view

    def encode(self, lq: Tensor, noise: Noise | None = None) -> Tensor:
        """Return z_L (B, C, h, w), scaled, float32, for ``lq`` (B, 3, H, W) in [-1, 1].

        At T = 999 x0 has 1 / alpha_T = 14.6 times what is rounded off z_L: half precision is for the networks alone.
        """
        posterior = posterior_of(self.vae, lq, self.tiling)
        z = posterior.mean.float()
        if noise is not None and self.latent == "sample":
            z = z + posterior.std.float() * noise("posterior", tuple(z.shape[1:])).to(z)
        return z * self.scaling_factor

    def one_step(self, z: Tensor, prompt_embeds: Tensor) -> Tensor:
        """Return z_hat = F(z; c_y); x0 comes from abar_T directly, in float32."""

        def predict(prompt_embeds: Tensor, z: Tensor) -> Tensor:
            t = torch.full((len(z),), self.timestep, device=z.device)
            return self.unet(z.to(next(self.vae.parameters()).dtype), t, prompt_embeds).sample

        if self.tiling is None:
            eps = predict(prompt_embeds, z)
        else:
            eps = tiled_denoise(predict, prompt_embeds, z, network=self.unet, tiling=self.tiling, multiple=self._unet_factor)
        return predict_x0(z.float(), eps.float(), self._abar, self.prediction_type)

    def decode(self, latent: Tensor) -> Tensor:
        """Return the image (B, 3, H, W), clamped to [-1, 1], of scaled latents."""
        return decode_latent(self.vae, latent, self.tiling, self.light_decoder)

    def forward(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise | None = None, context: Context = NOTHING) -> GeneratorOutput:
        if self.tiling is None:  # tiles are cast one by one
            lq = lq.to(next(self.vae.parameters()).dtype)
        latent = self.one_step(self.encode(lq, noise), prompt_embeds)
        return GeneratorOutput(image=self.decode(latent), latent=latent)


def keep_float32(layer: nn.Module) -> None:
    """Let a layer of a lower-precision network compute and train in float32: small steps on its weights would be rounded away."""
    dtype = next(layer.parameters()).dtype
    layer.float()
    layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    layer.register_forward_hook(lambda _, inputs, output: output.to(dtype))
