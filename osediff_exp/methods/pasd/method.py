"""PASD's training."""

from __future__ import annotations

from typing import final

from osediff_exp.errors import UserError
from osediff_exp.methods.base import Method, MethodLoss, OptimizerFactory, Parts, refuse_terms, right_generator
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.chain.denoising import denoising_loss
from osediff_exp.methods.noised import Noised, check_probability
from osediff_exp.methods.pasd.degradation_removal import removal_loss
from osediff_exp.methods.pasd.generator import PASDGenerator


@final
class PASD(Method):
    """Mean squared error of the predicted noise at t ~ uniform{0..999}, all t alike, plus the distance of the pictures that degradation
    removal reads off at every scale to the ground truth; half of the samples train without words (as released: ``null_text_ratio``).

    Departure: words are the chosen prompt's, suffix included (released: a caption in training, at test one with the suffix).

    Args:
        parts: with a :class:`PASDGenerator`, without loss terms.
        optimizer: of control net and pixel attentions (the released script's default learning rate: 5e-6).
        removal_weight: of degradation removal's loss.
        text_dropout: share of the samples that train without words.

    Raises:
        UserError: as :class:`Method`, or an argument is out of range.
    """

    generator: PASDGenerator

    def __init__(self, parts: Parts, *, optimizer: OptimizerFactory, removal_weight: float = 1.0, text_dropout: float = 0.5) -> None:
        super().__init__(parts, optimizer=optimizer)
        refuse_terms(parts, "pasd")
        right_generator(parts, "pasd", PASDGenerator)
        if removal_weight < 0:
            raise UserError(f"method.training.removal_weight={removal_weight} must not be negative: use 0 to leave degradation removal out")
        self.removal_weight = removal_weight
        self.text_dropout = check_probability("method.training.text_dropout", text_dropout)

    def loss(self, batch: TrainingBatch) -> MethodLoss:
        network, schedule = self.generator.network, self.generator.schedule
        noised = Noised.of(batch, self.generator, text_dropout=self.text_dropout)
        removed = network.embed((batch.lq + 1) / 2)
        denoising = denoising_loss(
            lambda z_t, t: network(z_t, t, noised.text, removed.embedding), noised.z0, eps=noised.eps, t=noised.t, schedule=schedule
        )
        removal = removal_loss(removed.rgbs, batch.hq)
        loss = denoising + self.removal_weight * removal
        figures = {"loss": loss, "denoising": denoising, "degradation_removal": removal}
        return MethodLoss(loss, {f"train/{name}": figure.detach() for name, figure in figures.items()})
