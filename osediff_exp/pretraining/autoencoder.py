"""Stage 1 of pretraining: the AutoencoderKL."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from osediff_exp.devices import sent
from osediff_exp.losses.adversarial import critic_objective, frozen_call, full_precision, generator_objective
from osediff_exp.models.discriminators.unet import UNetDiscriminator
from osediff_exp.models.perceptual import st_lpips_distance
from osediff_exp.pretraining.initial import carry_over
from osediff_exp.pretraining.schedule import CosineTraining
from osediff_exp.randomness import sample_noise


class AutoencoderPretraining(CosineTraining):
    """Train an AutoencoderKL: L1, a small KL penalty and, where they have a weight, ST-LPIPS and a discriminator.

    Rombach et al. 2022, section 3.1, with ST-LPIPS in place of LPIPS and a fixed adversarial weight. L1 alone leaves a decoder that
    smooths texture away: a restorer behind it can be no sharper than it is.

    Batches hold ``hq`` (B, 3, S, S) in [0, 1] and ``index`` (B,). Logs the parts of the loss as ``train/...`` and, in validation,
    ``val/psnr`` (the mean over images of the RGB PSNR in dB of the reconstruction from the posterior's mode, rounded to 8 bit) and, with a
    perceptual weight, ``val/perceptual``.

    Args:
        architecture: AutoencoderKL's own keys.
        init: an autoencoder to go on from; tensors of other names or shapes are left out.
        train_encoder: false trains the decoder alone, on latents that stay as they are.
    """

    def __init__(
        self,
        *,
        architecture: dict[str, Any],
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        max_steps: int,
        kl_weight: float,
        seed: int,
        init: nn.Module | None = None,
        train_encoder: bool = True,
        perceptual_weight: float = 0.0,
        perceptual_net: str = "vgg",
        adversarial_weight: float = 0.0,
        discriminator_width: int = 16,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, warmup_steps=warmup_steps, max_steps=max_steps)
        self.vae = AutoencoderKL(**architecture).to(memory_format=torch.channels_last)
        if init is not None:
            carry_over(self.vae, init)
        for part in (self.vae.encoder, self.vae.quant_conv):
            if part is not None:
                part.requires_grad_(train_encoder)
        self.perceptual = st_lpips_distance(perceptual_net) if perceptual_weight else None
        self.discriminator = UNetDiscriminator(width=discriminator_width, spectral_norm=True) if adversarial_weight else None
        self.perceptual_weight, self.adversarial_weight = perceptual_weight, adversarial_weight
        self.kl_weight = kl_weight
        self.seed = seed

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        x = (2 * batch["hq"] - 1).contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(x).latent_dist
        noise = sent(sample_noise(self.seed, "posterior", 0, batch["index"].tolist(), tuple(posterior.mean.shape[1:])), x.device)
        reconstruction = self.vae.decode(posterior.mean + posterior.std * noise).sample.float()
        parts = {"l1": (reconstruction - x).abs().mean(), "kl": posterior.kl().mean() / x[0].numel()}
        loss = parts["l1"] + self.kl_weight * parts["kl"]
        if self.perceptual is not None:
            parts["perceptual"] = self.perceptual(reconstruction, x).mean()
            loss = loss + self.perceptual_weight * parts["perceptual"]
        if self.discriminator is not None:
            with full_precision(reconstruction):
                parts["adversarial"] = generator_objective(frozen_call(self.discriminator, reconstruction), "softplus")
                parts["discriminator"] = critic_objective(self.discriminator(x), self.discriminator(reconstruction.detach()), "softplus")
            loss = loss + self.adversarial_weight * parts["adversarial"] + parts["discriminator"]
        self.log_dict({f"train/{name}": value.detach() for name, value in parts.items()})
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"])
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        restored = self.reconstruct(batch["hq"])
        mse = (restored - batch["hq"]).square().mean(dim=(1, 2, 3))
        self.log("val/psnr", (-10 * mse.log10()).mean(), batch_size=len(mse), prog_bar=True, sync_dist=True)
        if self.perceptual is not None:
            distance = self.perceptual(2 * restored - 1, 2 * batch["hq"] - 1).mean()
            self.log("val/perceptual", distance, batch_size=len(mse), sync_dist=True)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return D(E(x).mode()) for images (B, 3, H, W) in [0, 1], on the 8-bit grid."""
        latent = self.vae.encode(2 * images - 1).latent_dist.mode()
        return ((self.vae.decode(latent).sample.float() + 1) / 2).clamp(0, 1).mul(255).round().div(255)

    @torch.no_grad()
    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return named pictures (N, 3, H, W) in [0, 1] that show the state of training."""
        return {"original": batch["hq"], "reconstruction": self.reconstruct(batch["hq"])}


@torch.no_grad()
def latent_scaling_factor(vae: AutoencoderKL, batches: list[Tensor]) -> float:
    """Return 1 / std of the latents of ``batches`` ((B, 3, S, S) in [0, 1]): the factor that gives U-Net inputs unit variance."""
    latents = [vae.encode(2 * batch - 1).latent_dist.mode().flatten() for batch in batches]
    return 1.0 / float(torch.cat(latents).std())
