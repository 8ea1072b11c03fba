"""OSEDiff: loss terms on the output of a one-step generator, some with networks of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.losses.base import CriticTerm, LossInputs, LossTerm
from osediff_exp.methods.base import Group, Logs, Method, MethodLoss, OptimizerFactory, Parts
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.models.generator_base import Generator


class OSEDiff(Method):
    """Train a generator with any set of loss terms; terms with networks of their own are groups beside it (paper, Algorithm 1).

    Args:
        parts: with at least one loss term.
        optimizer: of the generator; each critic brings its own.
    """

    def __init__(self, parts: Parts, *, optimizer: OptimizerFactory) -> None:
        super().__init__(parts, optimizer=optimizer)
        if not parts.terms:
            raise UserError("no loss term is left: give at least one term in loss/terms a weight above 0")
        self.terms = nn.ModuleDict(dict(parts.terms))

    @property
    def critics(self) -> dict[str, CriticTerm]:
        """The terms that train networks of their own."""
        return {name: term for name, term in self._terms.items() if isinstance(term, CriticTerm)}

    @property
    def _terms(self) -> dict[str, LossTerm]:
        return {name: term for name, term in self.terms.items() if isinstance(term, LossTerm)}

    def groups(self) -> dict[str, Group]:
        return super().groups() | {
            name: Group(parameters=critic.critic_parameters(), optimizer=critic.optimizer, every_round=True)
            for name, critic in self.critics.items()
        }

    def loss(self, batch: TrainingBatch) -> MethodLoss:
        """Return the terms' weighted sum plus every critic's loss: their graphs are disjoint (docs/adr/0003)."""
        shares = list(self.shares(batch))
        return MethodLoss(
            sum((share.loss for share in shares[1:]), shares[0].loss), {k: v for share in shares for k, v in share.logs.items()}
        )

    def shares(self, batch: TrainingBatch) -> Iterator[MethodLoss]:
        """Yield the terms' weighted sum, then every critic's loss."""
        inputs = restored(self.generator, batch)
        yield MethodLoss(*generator_objective(self._terms, inputs))
        for name, critic in self.critics.items():
            yield MethodLoss(*critics_objective({name: critic}, inputs))

    def critics_loss(self, batch: TrainingBatch) -> MethodLoss:
        with torch.no_grad():
            inputs = restored(self.generator, batch)
        loss, logs = critics_objective(self.critics, inputs)
        # DDP waits for a gradient of every parameter it knows: the generator's are zeros here.
        return MethodLoss(loss + 0.0 * sum(parameter.sum() for parameter in self.generator.trainable_parameters()), logs)


def restored(generator: Generator, batch: TrainingBatch) -> LossInputs:
    """Return what the terms look at: the generator's output for the batch, beside the truth."""
    output = generator(batch.lq, batch.prompt_embeds, lambda purpose, shape: batch.noise(f"generator/{purpose}", shape))
    return LossInputs(
        output=output.image,
        target=batch.hq,
        latent=output.latent,
        prompt_embeds=batch.prompt_embeds,
        negative_embeds=batch.negative_embeds,
        seed=batch.seed,
        step=batch.step,
        indices=batch.indices,
    )


def generator_objective(terms: Mapping[str, LossTerm], inputs: LossInputs) -> tuple[Tensor, Logs]:
    """Return the sum over terms of weight * loss, and each term's own loss and figures (``train/TERM``, ``TERM/FIGURE``)."""
    total, logs = inputs.output.new_zeros((), dtype=torch.float32), {}
    for name, term in terms.items():
        output = term(inputs)
        total = total + term.weight * output.loss
        logs[f"train/{name}"] = output.loss.detach()
        logs |= {f"{name}/{key}": value.detach() for key, value in output.logs.items()}
    return total, logs | {"train/loss": total.detach()}


def critics_objective(critics: Mapping[str, CriticTerm], inputs: LossInputs) -> tuple[Tensor, Logs]:
    """Return the sum of the critics' losses, zero where there is none, and their figures (``train/TERM_critic``, ``TERM/FIGURE``).

    A critic's weight is its learning rate: its loss is not multiplied by the term's.
    """
    total, logs = inputs.output.new_zeros((), dtype=torch.float32), {}
    for name, critic in critics.items():
        output = critic.critic_loss(inputs)
        total = total + output.loss
        logs[f"train/{name}_critic"] = output.loss.detach()
        logs |= {f"{name}/{key}": value.detach() for key, value in output.logs.items()}
    return total, logs
