"""SeeSR's training."""

from __future__ import annotations

from typing import final

from osediff_exp.methods.base import Method, MethodLoss, OptimizerFactory, Parts, refuse_terms, right_generator
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.chain.denoising import denoising_loss
from osediff_exp.methods.noised import Noised, check_probability
from osediff_exp.methods.seesr.generator import SeeSRGenerator


@final
class SeeSR(Method):
    """Mean squared error of the predicted noise at t ~ uniform{0..999}, all t alike; half of the samples train without words, all with
    their image tokens (as released: ``null_text_ratio``).

    Departures from the released training: words are the chosen prompt's, suffix included (released: the bare tags, the suffix at test
    only); image tokens come from the tagger of the chosen prompt (published: DAPE, ``prompt=ram prompt.lora=DAPE.pth``).

    Args:
        parts: with a :class:`SeeSRGenerator`, without loss terms.
        optimizer: of control net and image attentions (published: learning rate 5e-5, batch 32).
        text_dropout: share of the samples that train without words.

    Raises:
        UserError: as :class:`Method`, or ``text_dropout`` is no probability.
    """

    generator: SeeSRGenerator

    def __init__(self, parts: Parts, *, optimizer: OptimizerFactory, text_dropout: float = 0.5) -> None:
        super().__init__(parts, optimizer=optimizer)
        refuse_terms(parts, "seesr")
        right_generator(parts, "seesr", SeeSRGenerator)
        self.text_dropout = check_probability("method.training.text_dropout", text_dropout)

    def loss(self, batch: TrainingBatch) -> MethodLoss:
        network, schedule, tokens = self.generator.network, self.generator.schedule, batch.image_embeds
        assert tokens is not None, "the generator asks for image tokens"
        noised = Noised.of(batch, self.generator, text_dropout=self.text_dropout)
        condition = network.embed((batch.lq + 1) / 2)
        loss = denoising_loss(
            lambda z_t, t: network(z_t, t, noised.text, condition, tokens), noised.z0, eps=noised.eps, t=noised.t, schedule=schedule
        )
        return MethodLoss(loss, {"train/loss": loss.detach()})
