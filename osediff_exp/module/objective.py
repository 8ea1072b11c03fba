"""What a micro-batch differentiates: the generator's loss, and the losses of the terms' own networks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from osediff_exp.losses.base import CriticTerm, LossInputs, LossTerm

Logs = dict[str, Tensor]
"""Detached figures by their keys in the log: scalars, or (B,) to be averaged."""


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
