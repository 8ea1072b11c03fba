"""StableSR's sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.methods.chain.binding import bound
from osediff_exp.methods.chain.choosing import SamplerName, most_steps, sampler_named
from osediff_exp.methods.chain.starts import Start, check_start, start_latent
from osediff_exp.methods.sampler import Sampler
from osediff_exp.methods.stablesr.fused_decoding import fused_decode
from osediff_exp.methods.stablesr.fusing import add_fusion, set_fusion_weight
from osediff_exp.methods.stablesr.network import StructureUNet
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import NOTHING, PARTS, Context, GeneratorOutput, Noise

Stage = Literal["cfw"]


class StableSRGenerator(Sampler):
    """StableSR: the prior's U-Net, modulated by a time-aware encoder of the low-quality latent, over a respaced chain of 200 steps.

    It departs from the published one in this: SPADE is added to the prior's features where the released code replaces them (``neutral``);
    latents of pictures are the posterior's mode, where the released code draws from it; and one step, which the released respacing would
    take at t = 0, is taken at the chain's start.

    Args:
        backbone: frozen; VAE and U-Net are viewed.
        stage: None is the diffusion model with the plain decoder; ``cfw`` has the decoder's fusions too, and only these train.
        steps: 1..1000 (``unipc``: 999).
        start: ``noise`` as released; ``lr`` is the low-quality latent noised to the last timestep. ``cond`` is the same here.
        sampler: ``ddpm`` as released, ``ddim``, ``unipc``.
        width: of the encoder; None: in the released proportion to the U-Net's.
        neutral: see :class:`osediff_exp.methods.stablesr.spade.Spade`.
        fusion_weight: w of CFW while restoring (released: .5); 0 is the plain decoder.
        gradient_checkpointing: recompute the U-Net's activations in the backward pass to save memory.

    Raises:
        UserError: an argument is out of range.
    """

    parts: Mapping[str, tuple[str, ...]] = {**PARTS, "unet": ("network.unet",), "structure_encoder": ("network.encoder",)}

    def __init__(
        self,
        *,
        backbone: Backbone,
        stage: Stage | None = None,
        steps: int = 200,
        start: Start = "noise",
        sampler: SamplerName = "ddpm",
        width: int | None = None,
        neutral: bool = True,
        fusion_weight: float = 0.5,
        gradient_checkpointing: bool = False,
    ) -> None:
        if stage not in (None, "cfw"):
            raise UserError(f"method.stage={stage} is no stage of method=stablesr: use null (the diffusion model), then cfw")
        check_start(start)
        super().__init__(backbone=backbone, steps=steps, max_steps=most_steps(sampler, backbone.schedule))
        self.stage, self.start, self.fusion_weight, self.neutral = stage, start, fusion_weight, neutral
        self.schedule, self.chain = backbone.schedule, sampler_named(sampler)
        self.network = StructureUNet(backbone=backbone, width=width, neutral=neutral)
        self._kept = {f"network.{name}" for name, weight in self.network.named_parameters() if weight.requires_grad}
        if gradient_checkpointing:
            self.network.unet.enable_gradient_checkpointing()
        if stage == "cfw":
            self.network.requires_grad_(False)
            add_fusion(self.vae)

    def own_tensors(self) -> dict[str, nn.Parameter]:
        """Return what trains, and the diffusion model's own part, which the stage ``cfw`` keeps."""
        kept = {name: weight for name, weight in self.named_parameters() if name in self._kept}
        return super().own_tensors() | kept

    @torch.no_grad()
    def adopt(self, diffusion: StableSRGenerator) -> None:
        """Take over a trained diffusion model's encoder and SPADE.

        Raises:
            UserError: it has another shape, or its SPADE another formula.
        """
        if diffusion.neutral != self.neutral:
            raise UserError(f"method.needs.diffusion was trained with generator.neutral={diffusion.neutral}: set it as that run did")
        theirs = diffusion.own_tensors()
        own = {name: weight for name, weight in self.own_tensors().items() if name in self._kept}
        if {name: weight.shape for name, weight in own.items()} != {name: theirs[name].shape for name in own if name in theirs}:
            raise UserError("method.needs.diffusion holds a StableSR of another size: set generator.width as that run did")
        for name, weight in own.items():
            weight.copy_(theirs[name])

    def sample(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise, context: Context) -> Tensor:
        seen = self.encode(lq)
        denoise = bound(self.network, prompt_embeds, seen, schedule=self.schedule, tiling=self.tiling, multiple=self.unet_factor)
        abar = self.schedule.abar(self.schedule.num_steps - 1)
        z = start_latent(self.start, lr=seen, cond=seen, abar_t=abar, noise=noise)
        return self.chain.sample(
            denoise, z, schedule=self.schedule, steps=self.steps, noise=noise, progress=lambda done, steps: self.tell(done)
        )

    def fuse(self, latent: Tensor, lq: Tensor, *, w: float) -> Tensor:
        """Return the picture (B, 3, H, W), clamped to [-1, 1], of scaled latents, corrected by w times the fusions (stage ``cfw``)."""
        set_fusion_weight(self.vae, w)
        return fused_decode(self.vae, latent, lq, self.tiling)

    def forward(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise | None = None, context: Context = NOTHING) -> GeneratorOutput:
        if self.stage is None:
            return super().forward(lq, prompt_embeds, noise, context)
        assert noise is not None, "a sampler draws noise"
        latent = self.sample(lq, prompt_embeds, noise, context)
        return GeneratorOutput(image=self.fuse(latent, lq, w=self.fusion_weight), latent=latent)
