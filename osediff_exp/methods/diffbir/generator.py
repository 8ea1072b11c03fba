"""DiffBIR's sampler, and its cleaning network by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from osediff_exp.diffusion import add_noise
from osediff_exp.errors import UserError
from osediff_exp.methods.chain.binding import bound, noise_in
from osediff_exp.methods.chain.choosing import SamplerName, most_steps, sampler_named
from osediff_exp.methods.chain.denoising import Denoise, guided, with_adjusted_x0
from osediff_exp.methods.chain.starts import Start, check_start, start_latent
from osediff_exp.methods.diffbir.cleaning import CleaningNetwork
from osediff_exp.methods.diffbir.network import ControlledUNet
from osediff_exp.methods.diffbir.restoration_guidance import RestorationGuidance, Space
from osediff_exp.methods.diffbir.tiled_cleaning import tiled_clean
from osediff_exp.methods.sampler import Sampler
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import NOTHING, PARTS, Context, GeneratorOutput, Noise

Stage = Literal["cleaning"]


class DiffBIRGenerator(Sampler):
    """DiffBIR: a cleaning network, then the prior's U-Net under IRControlNet over a respaced chain of 50 steps, guided by text.

    The output's colours are fixed by the cleaned picture's, as released (with ``restorer.color_fix=wavelet``, which is theirs).

    It departs from the published one in this: the cleaning network is a compact RRDB network (:class:`CleaningNetwork`), where theirs
    has 16 M parameters; and one step, which the released respacing would take at t = 0, is taken at the chain's start.

    Args:
        backbone: frozen; VAE and U-Net are viewed.
        stage: ``cleaning`` is the cleaning network alone, in one step; None the whole, of which the control net trains.
        steps: 1..1000 (``unipc``: 999).
        guidance: between prompt and negative prompt (released: 4 in the paper's version, 6 in v2.1); 1 is none.
        start: ``noise`` as released; ``cond`` and ``lr`` are the latents of the cleaned and of the low-quality picture, noised to the
            last timestep.
        sampler: ``ddpm`` as released, ``ddim``, ``unipc``.
        augmentation: the condition is noised to this timestep while restoring; 0 (released) leaves it as it is.
        restoration_scale, restoration_space: see :class:`RestorationGuidance`; 0 (released) is none. In pixels it decodes whole pictures,
            whatever the tiles.
        channels, growth, blocks: of the cleaning network.
        gradient_checkpointing: recompute activations of control net and U-Net in the backward pass to save memory.

    Raises:
        UserError: an argument is out of range.
    """

    parts: Mapping[str, tuple[str, ...]] = {
        **PARTS,
        "cleaning": ("cleaning",),
        "control_net": ("network.control",),
        "unet": ("network.unet",),
    }

    def __init__(
        self,
        *,
        backbone: Backbone,
        stage: Stage | None = None,
        steps: int = 50,
        guidance: float = 4.0,
        start: Start = "noise",
        sampler: SamplerName = "ddpm",
        augmentation: int = 0,
        restoration_scale: float = 0.0,
        restoration_space: Space = "rgb",
        channels: int = 32,
        growth: int = 16,
        blocks: int = 4,
        gradient_checkpointing: bool = False,
    ) -> None:
        if stage not in (None, "cleaning"):
            raise UserError(f"method.stage={stage} is no stage of method=diffbir: use cleaning, then null (the diffusion model)")
        check_start(start)
        num_steps, cleans = backbone.schedule.num_steps, stage == "cleaning"
        if not 0 <= augmentation < num_steps:
            raise UserError(f"generator.augmentation={augmentation} is outside the backbone's timesteps, 0..{num_steps - 1}")
        super().__init__(
            backbone=backbone,
            steps=1 if cleans else steps,
            max_steps=1 if cleans else most_steps(sampler, backbone.schedule),
            guidance=1.0 if cleans else guidance,
            guided=not cleans,
        )
        self.draws_noise = not cleans
        self.stage, self.start, self.augmentation = stage, start, augmentation
        self.schedule, self.chain = backbone.schedule, sampler_named(sampler)
        self.restoration = RestorationGuidance(scale=restoration_scale, space=restoration_space)
        self.cleaning = CleaningNetwork(channels=channels, growth=growth, blocks=blocks)
        if not cleans:
            self.cleaning.requires_grad_(False)
            self.network = ControlledUNet(backbone=backbone)
            if gradient_checkpointing:
                self.network.unet.enable_gradient_checkpointing()
                self.network.control.enable_gradient_checkpointing()

    def own_tensors(self) -> dict[str, nn.Parameter]:
        """Return what trains, and the cleaning network, which the diffusion model keeps."""
        return super().own_tensors() | {f"cleaning.{name}": weight for name, weight in self.cleaning.named_parameters()}

    @torch.no_grad()
    def adopt(self, cleaner: DiffBIRGenerator) -> None:
        """Take over a trained cleaning network.

        Raises:
            UserError: it has another shape.
        """
        own, theirs = dict(self.cleaning.named_parameters()), dict(cleaner.cleaning.named_parameters())
        if {name: weight.shape for name, weight in own.items()} != {name: weight.shape for name, weight in theirs.items()}:
            raise UserError(
                "method.needs.cleaning holds a cleaning network of another size: set generator.channels, growth and blocks as that run did"
            )
        for name, weight in own.items():
            weight.copy_(theirs[name])

    @torch.no_grad()
    def clean(self, lq: Tensor) -> Tensor:
        """Return cleaned pictures (B, 3, H, W), float32, clamped to [-1, 1], of ``lq``, by tiles where :attr:`tiling` is set."""
        cleaned = self.cleaning(lq) if self.tiling is None else tiled_clean(self.cleaning, lq, self.tiling)
        return cleaned.float().clamp(-1, 1)

    def sample(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise, context: Context) -> Tensor:
        return self._sample(lq, self.clean(lq), prompt_embeds, noise, context)

    def _sample(self, lq: Tensor, cleaned: Tensor, prompt_embeds: Tensor, noise: Noise, context: Context) -> Tensor:
        schedule, condition = self.schedule, self.encode(cleaned)
        z = start_latent(
            self.start,
            lr=self.encode(lq) if self.start == "lr" else condition,
            cond=condition,
            abar_t=schedule.abar(schedule.num_steps - 1),
            noise=noise,
        )
        seen = condition
        if self.augmentation > 0:
            eps = noise("augmentation", tuple(condition.shape[1:])).to(condition)
            seen = add_noise(condition, eps, schedule.abar(self.augmentation))
        denoise = self._restored_to(self._guided(prompt_embeds, seen, context), cleaned, condition)
        return self.chain.sample(denoise, z, schedule=schedule, steps=self.steps, noise=noise, progress=lambda done, _: self.tell(done))

    def _guided(self, prompt_embeds: Tensor, seen: Tensor, context: Context) -> Denoise:
        """Return the denoiser between both prompts; the control net sees each branch's text, as released."""
        noise = [noise_in(self.schedule, self.augmentation)] if self.augmentation > 0 else []
        branches = [
            bound(self.network, embeds, seen, schedule=self.schedule, tiling=self.tiling, multiple=self.unet_factor, noise=noise)
            for embeds in (prompt_embeds, context.negative_embeds)
            if embeds is not None
        ]
        if self.guidance == 1:
            return branches[0]
        assert len(branches) == 2, "guidance needs a negative prompt"
        return guided(branches[0], branches[1], self.guidance)

    def _restored_to(self, denoise: Denoise, cleaned: Tensor, condition: Tensor) -> Denoise:
        """Return the denoiser under restoration guidance, or as it is."""
        if self.restoration.scale == 0:
            return denoise
        target = condition if self.restoration.space == "latent" else cleaned.to(condition.device)
        return with_adjusted_x0(denoise, partial(self.restoration.adjust, cleaned=target, decode=self._decode_whole), self.schedule)

    def _decode_whole(self, latent: Tensor) -> Tensor:
        z = latent / float(self.vae.config.scaling_factor)
        return self.vae.decode(z.to(next(self.vae.parameters()).dtype)).sample.float()

    def forward(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise | None = None, context: Context = NOTHING) -> GeneratorOutput:
        cleaned = self.clean(lq)
        if self.stage == "cleaning":
            self.tell(1)
            return GeneratorOutput(image=cleaned, latent=self.encode(cleaned))
        assert noise is not None, "a sampler draws noise"
        latent = self._sample(lq, cleaned, prompt_embeds, noise, context)
        return GeneratorOutput(image=self.decode(latent), latent=latent, reference=cleaned)
