"""StableSR's training: the diffusion model, then the decoder's fusions."""

from __future__ import annotations

from collections.abc import Callable

from osediff_exp.losses.base import LossTerm
from osediff_exp.losses.gan import GANLoss
from osediff_exp.methods.base import Method, MethodLoss, OptimizerFactory, Parts, refuse_terms, right_generator
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.chain.binding import bound
from osediff_exp.methods.chain.denoising import denoising_loss
from osediff_exp.methods.stablesr.fusion_method import StableSRFusion
from osediff_exp.methods.stablesr.generator import StableSRGenerator
from osediff_exp.methods.stablesr.sharpening import unsharp_mask


class StableSR(Method):
    """Mean squared error of the prediction at t ~ uniform{0..999}; encoder and SPADE train.

    Args:
        parts: with a :class:`StableSRGenerator` of no stage, without loss terms.
        optimizer: of encoder and SPADE.
        sharpen: unsharp-mask the targets, as released.
    """

    generator: StableSRGenerator

    def __init__(self, parts: Parts, *, optimizer: OptimizerFactory, sharpen: bool = True) -> None:
        super().__init__(parts, optimizer=optimizer)
        self.sharpen = sharpen

    def loss(self, batch: TrainingBatch) -> MethodLoss:
        generator, schedule = self.generator, self.generator.schedule
        target = 2 * unsharp_mask((batch.hq + 1) / 2) - 1 if self.sharpen else batch.hq
        z0, seen = generator.encode(target), generator.encode(batch.lq)
        t = batch.timesteps("stablesr/t", 0, schedule.num_steps)
        eps = batch.noise("stablesr/eps", tuple(z0.shape[1:]))
        loss = denoising_loss(bound(generator.network, batch.prompt_embeds, seen, schedule=schedule), z0, eps=eps, t=t, schedule=schedule)
        return MethodLoss(loss, {"train/loss": loss.detach()})


def stablesr(
    parts: Parts,
    *,
    optimizer: OptimizerFactory,
    sharpen: bool,
    perceptual: Callable[[], LossTerm],
    discriminator: Callable[[], GANLoss],
    gan_start: int,
    latent_steps: int,
) -> Method:
    """Return the method of the generator's stage: :class:`StableSR`, or :class:`StableSRFusion` for ``cfw``; see these."""
    refuse_terms(parts, "stablesr")
    right_generator(parts, "stablesr", StableSRGenerator)
    assert isinstance(parts.generator, StableSRGenerator)
    if parts.generator.stage is None:
        return StableSR(parts, optimizer=optimizer, sharpen=sharpen)
    return StableSRFusion(
        parts,
        optimizer=optimizer,
        perceptual=perceptual,
        discriminator=discriminator,
        gan_start=gan_start,
        latent_steps=latent_steps,
    )
