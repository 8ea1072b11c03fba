"""DiffBIR's training: the cleaning network, then the control net."""

from __future__ import annotations

from torch import Tensor

from osediff_exp.diffusion import add_noise
from osediff_exp.errors import UserError
from osediff_exp.methods.base import Method, MethodLoss, OptimizerFactory, Parts, earlier_part, refuse_terms, right_generator
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.chain.binding import bound
from osediff_exp.methods.chain.denoising import denoising_loss
from osediff_exp.methods.diffbir.cleaning import cleaning_loss
from osediff_exp.methods.diffbir.generator import DiffBIRGenerator
from osediff_exp.methods.noised import drawn_latents


class Cleaning(Method):
    """Plain mean squared error of the cleaning network at output size (stage ``cleaning``)."""

    generator: DiffBIRGenerator

    def loss(self, batch: TrainingBatch) -> MethodLoss:
        loss = cleaning_loss(self.generator.cleaning, batch.lq, batch.hq)
        return MethodLoss(loss, {"train/loss": loss.detach()})


class DiffBIR(Method):
    """Mean squared error of the prediction at t ~ uniform{0..999}; IRControlNet trains, the cleaning network is the earlier stage's.

    The released training lowers the learning rate from 1e-4 to 1e-5 after 30k steps; here it is constant, as every method's is. The
    cleaned picture is clamped to the range of pictures, as it is while restoring.

    Args:
        parts: with a :class:`DiffBIRGenerator` of no stage, and ``earlier["cleaning"]``, one of stage ``cleaning``.
        optimizer: of the control net.
        augmentation: the condition is noised to t ~ uniform{0..augmentation - 1}; 0 (released default) leaves it as it is.

    Raises:
        UserError: the cleaning network has another shape, or ``augmentation`` is out of range.
    """

    generator: DiffBIRGenerator

    def __init__(self, parts: Parts, *, optimizer: OptimizerFactory, augmentation: int = 0) -> None:
        super().__init__(parts, optimizer=optimizer)
        num_steps = self.generator.schedule.num_steps
        if not 0 <= augmentation <= num_steps:
            raise UserError(f"method.training.augmentation={augmentation} is out of range: use 0 to {num_steps}")
        self.augmentation = augmentation
        self.generator.adopt(earlier_part(parts, "cleaning", DiffBIRGenerator))

    def loss(self, batch: TrainingBatch) -> MethodLoss:
        generator, schedule = self.generator, self.generator.schedule
        z0, seen = drawn_latents(batch, generator), self._condition(batch)
        t = batch.timesteps("diffbir/t", 0, schedule.num_steps)
        eps = batch.noise("diffbir/eps", tuple(z0.shape[1:]))
        loss = denoising_loss(bound(generator.network, batch.prompt_embeds, seen, schedule=schedule), z0, eps=eps, t=t, schedule=schedule)
        return MethodLoss(loss, {"train/loss": loss.detach()})

    def _condition(self, batch: TrainingBatch) -> Tensor:
        """Return the scaled latents (B, C, h, w) of the cleaned pictures, noised where that is asked for."""
        condition = self.generator.encode(self.generator.clean(batch.lq))
        if self.augmentation == 0:
            return condition
        t = batch.timesteps("diffbir/augmentation_t", 0, self.augmentation)
        eps = batch.noise("diffbir/augmentation", tuple(condition.shape[1:]))
        return add_noise(condition, eps, self.generator.schedule.abar(t))


def diffbir(parts: Parts, *, optimizer: OptimizerFactory, augmentation: int = 0) -> Method:
    """Return the method of the generator's stage: :class:`Cleaning`, or :class:`DiffBIR` for None; see these."""
    refuse_terms(parts, "diffbir")
    right_generator(parts, "diffbir", DiffBIRGenerator)
    assert isinstance(parts.generator, DiffBIRGenerator)
    if parts.generator.stage == "cleaning":
        return Cleaning(parts, optimizer=optimizer)
    return DiffBIR(parts, optimizer=optimizer, augmentation=augmentation)
