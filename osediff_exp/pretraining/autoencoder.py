"""Stage 1 of pretraining: the AutoencoderKL."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from osediff_exp.pretraining.schedule import adamw_with_cosine
from osediff_exp.randomness import sample_noise


class AutoencoderPretraining(pl.LightningModule):
    """Train an AutoencoderKL with L1 reconstruction and a small KL penalty (Rombach et al. 2022, without the adversarial part).

    Batches hold ``hq`` (B, 3, S, S) in [0, 1] and ``index`` (B,). Logs ``train/l1``, ``train/kl`` and, in validation, ``val/psnr``: the
    mean over images of the RGB PSNR in dB of the reconstruction from the posterior's mode, rounded to 8 bit.
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
    ) -> None:
        super().__init__()
        self.vae = AutoencoderKL(**architecture).to(memory_format=torch.channels_last)
        self.learning_rate, self.weight_decay, self.warmup_steps, self.max_steps = learning_rate, weight_decay, warmup_steps, max_steps
        self.kl_weight = kl_weight
        self.seed = seed

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        x = (2 * batch["hq"] - 1).contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(x).latent_dist
        noise = sample_noise(self.seed, "posterior", 0, batch["index"].tolist(), tuple(posterior.mean.shape[1:])).to(x.device)
        reconstruction = self.vae.decode(posterior.mean + posterior.std * noise).sample
        l1 = (reconstruction.float() - x).abs().mean()
        kl = posterior.kl().mean() / x[0].numel()
        self.log_dict({"train/l1": l1, "train/kl": kl, "train/lr": self.trainer.optimizers[0].param_groups[0]["lr"]})
        return l1 + self.kl_weight * kl

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        restored = self.reconstruct(batch["hq"])
        mse = (restored - batch["hq"]).square().mean(dim=(1, 2, 3))
        self.log("val/psnr", (-10 * mse.log10()).mean(), batch_size=len(mse), prog_bar=True, sync_dist=True)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Return D(E(x).mode()) for images (B, 3, H, W) in [0, 1], on the 8-bit grid."""
        latent = self.vae.encode(2 * images - 1).latent_dist.mode()
        return ((self.vae.decode(latent).sample.float() + 1) / 2).clamp(0, 1).mul(255).round().div(255)

    @torch.no_grad()
    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return named pictures (N, 3, H, W) in [0, 1] that show the state of training."""
        return {"original": batch["hq"], "reconstruction": self.reconstruct(batch["hq"])}

    def configure_optimizers(self) -> Any:
        optimizer, schedule = adamw_with_cosine(
            self,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_steps=self.warmup_steps,
            max_steps=self.max_steps,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def latent_scaling_factor(vae: AutoencoderKL, batches: list[Tensor]) -> float:
    """Return 1 / std of the latents of ``batches`` ((B, 3, S, S) in [0, 1]): the factor that gives U-Net inputs unit variance."""
    latents = [vae.encode(2 * batch - 1).latent_dist.mode().flatten() for batch in batches]
    return 1.0 / float(torch.cat(latents).std())
