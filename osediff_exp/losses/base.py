"""The seam between the training loop and the loss terms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.optim import Optimizer

from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from osediff_exp.models.backbone import Backbone


@dataclass(frozen=True)
class LossInputs:
    """What a term may look at; B samples, S the image size, s the latent size.

    Attributes:
        output: restored images x_hat, (B, 3, S, S) in [-1, 1], with gradient.
        target: ground truth x_H, (B, 3, S, S) in [-1, 1].
        latent: restored latents z_hat, (B, C, s, s), scaled, with gradient.
        prompt_embeds: text features c_y of each sample's prompt, (B, L, D).
        negative_embeds: text features of the negative prompt, (B, L, D).
        seed, step, indices: key of the step's random numbers; ``indices`` are the B global sample indices.
    """

    output: Tensor
    target: Tensor
    latent: Tensor
    prompt_embeds: Tensor
    negative_embeds: Tensor
    seed: int
    step: int
    indices: list[int]


@dataclass(frozen=True)
class TermOutput:
    """A term's unweighted scalar loss and detached figures for the log (scalars, or (B,) tensors to be averaged)."""

    loss: Tensor
    logs: dict[str, Tensor] = field(default_factory=dict)


class LossTerm(nn.Module, ABC):
    """One summand of the generator's loss: ``weight * term(inputs).loss``."""

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise UserError(f"a loss weight must not be negative, got {weight} for {type(self).__name__}: use 0 to leave the term out")
        self.weight = float(weight)

    def attach(self, backbone: Backbone) -> None:
        """Take what the term needs of the frozen backbone; called once, before training."""

    @abstractmethod
    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the term's loss; its gradient must reach only the generator."""


class CriticTerm(LossTerm):
    """A term that trains networks of its own beside the generator (VSD's score network, a discriminator).

    The training loop adds :meth:`critic_loss` to the same backward pass (the graphs are disjoint: the critic sees detached inputs) and
    steps :attr:`optimizer` on :meth:`critic_parameters`.
    """

    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]

    @abstractmethod
    def critic_parameters(self) -> list[nn.Parameter]:
        """Return the trainable parameters of the term's own networks."""

    @abstractmethod
    def critic_loss(self, inputs: LossInputs) -> TermOutput:
        """Return the loss of the term's own networks; no gradient may reach the generator."""
