"""Stage 2 of pretraining: the U-Net and its text encoder on the latents of the frozen VAE."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.devices import sent
from osediff_exp.diffusion import add_noise, regression_target
from osediff_exp.models.backbone import Backbone
from osediff_exp.pretraining.captions import caption
from osediff_exp.pretraining.sampling import ddim_sample
from osediff_exp.pretraining.schedule import CosineTraining
from osediff_exp.randomness import numpy_generator, sample_integers, sample_noise

_VALIDATION_TIMESTEPS = (100, 300, 500, 700, 900)


class PriorPretraining(CosineTraining):
    """Train U-Net and text encoder as a latent diffusion model whose text conditioning knows sharp from degraded.

    A training sample is sharp (``hq``) or, with ``degraded_fraction``, degraded (``lq``), with the caption to match. Logs ``train/loss``
    (the MSE of the prediction) and, in validation, ``val/loss`` and ``val/loss_t100`` ... (sharp pictures, positive prompt, five fixed
    timesteps, fixed noise).
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        positive_prompt: str,
        negative_prompt: str,
        degraded_fraction: float,
        drop_probability: float,
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        max_steps: int,
        seed: int,
    ) -> None:
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, warmup_steps=warmup_steps, max_steps=max_steps)
        self.backbone = backbone
        backbone.unet.requires_grad_(True)
        backbone.text_encoder.requires_grad_(True)
        self.positive_prompt, self.negative_prompt = positive_prompt, negative_prompt
        self.degraded_fraction, self.drop_probability = degraded_fraction, drop_probability
        self.seed = seed

    def _choose(self, batch: dict[str, Any]) -> tuple[Tensor, list[str]]:
        """Return the latents to learn from, (B, C, s, s), and their captions; both are functions of (seed, sample index).

        The batch holds pictures ``hq`` and ``lq``, or ``latent`` and ``degraded`` (of
        :class:`~osediff_exp.pretraining.latents.CachedLatents`).
        """
        cached = "latent" in batch
        captions, images = [], []
        for row, (index, name) in enumerate(zip(batch["index"].tolist(), batch["name"], strict=True)):
            rng = numpy_generator(self.seed, "caption", index)
            drawn = bool(rng.random() < self.degraded_fraction)
            degraded = bool(batch["degraded"][row]) if cached else drawn
            if not cached:
                images.append(batch["lq" if degraded else "hq"][row])
            captions.append(
                caption(
                    rng,
                    name=name,
                    degraded=degraded,
                    positive_prompt=self.positive_prompt,
                    negative_prompt=self.negative_prompt,
                    drop_probability=self.drop_probability,
                )
            )
        return batch["latent"] if cached else self.encode(torch.stack(images)), captions

    def _text(self, captions: list[str]) -> Tensor:
        tokenizer = self.backbone.tokenizer
        tokens = tokenizer(captions, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt")
        return self.backbone.text_encoder(tokens.input_ids.to(self.device))[0]

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return scaled latents (the posterior's mode), float32 for the formulas of diffusion, of images (B, 3, S, S) in [0, 1]."""
        return self.backbone.vae.encode(2 * images - 1).latent_dist.mode().float() * self.backbone.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return images (B, 3, S, S) in [0, 1] of scaled latents."""
        return ((self.backbone.vae.decode(latents / self.backbone.scaling_factor).sample.float() + 1) / 2).clamp(0, 1)

    def _loss(self, latents: Tensor, text: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        schedule = self.backbone.schedule
        abar = schedule.abar(t)
        prediction = self.backbone.unet(add_noise(latents, eps, abar), t, text).sample
        target = regression_target(latents, eps, abar, schedule.prediction_type)
        return F.mse_loss(prediction.float(), target.float())

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        latents, captions = self._choose(batch)
        indices = batch["index"].tolist()
        t = sent(sample_integers(self.seed, "prior/t", 0, indices, 0, self.backbone.schedule.num_steps), self.device)
        eps = sent(sample_noise(self.seed, "prior/eps", 0, indices, tuple(latents.shape[1:])), self.device)
        loss = self._loss(latents, self._text(captions), t, eps)
        self.log_dict({"train/loss": loss, "train/lr": self.trainer.optimizers[0].param_groups[0]["lr"]})
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        latents, indices = self.encode(batch["hq"]), batch["index"].tolist()
        text = self._text([self.positive_prompt] * len(latents))
        losses = {}
        for t in _VALIDATION_TIMESTEPS:
            eps = sample_noise(self.seed, "prior/val", t, indices, tuple(latents.shape[1:])).to(latents)
            losses[f"val/loss_t{t}"] = self._loss(latents, text, torch.full((len(latents),), t, device=self.device), eps)
        self.log_dict(losses, batch_size=len(latents), sync_dist=True)
        self.log("val/loss", torch.stack(list(losses.values())).mean(), batch_size=len(latents), prog_bar=True, sync_dist=True)

    @torch.no_grad()
    def pictures(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Return picture rows: samples at guidance 3; LQ; LQ noised to t = 250 and denoised at guidance 1 and 7.5; HQ."""
        hq, lq, indices = batch["hq"], batch["lq"], batch["index"].tolist()
        positive, negative = (self._text([prompt] * len(hq)) for prompt in (self.positive_prompt, self.negative_prompt))
        latents = self.encode(lq)
        noise = sample_noise(self.seed, "prior/pictures", 0, indices, tuple(latents.shape[1:])).to(latents)
        rows = {"samples": self.decode(ddim_sample(self.backbone, noise, positive, negative, guidance=3.0, num_steps=30))}
        rows["lq"] = lq
        for guidance in (1.0, 7.5):
            noisy = add_noise(latents, noise, self.backbone.schedule.abar(250))
            denoised = ddim_sample(self.backbone, noisy, positive, negative, guidance=guidance, num_steps=8, start=250)
            rows[f"guidance_{guidance:g}"] = self.decode(denoised)
        rows["hq"] = hq
        return rows
