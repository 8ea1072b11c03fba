"""The seam between the training loop and the methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossTerm
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Generator

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]

Logs = dict[str, Tensor]
"""Detached figures by their keys in the log: scalars, or (B,) to be averaged (NaN: does not concern the sample)."""

Kind = TypeVar("Kind", bound=Generator)

GENERATOR = "generator"
"""Name of the group that every method has."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is built before a method.

    Attributes:
        backbone: frozen.
        generator: what restores, built on the backbone.
        terms: the loss terms of weight above 0, attached; empty for a method with a loss of its own.
        earlier: generators of the finished stages that the method needs (``method.needs``), frozen.
    """

    backbone: Backbone
    generator: Generator
    terms: Mapping[str, LossTerm] = field(default_factory=dict)
    earlier: Mapping[str, Generator] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that one optimizer steps and one norm clips.

    Attributes:
        every_round: with ``trainer.critic_updates`` above 1, steps in each round of a step; the others step in the last one.
    """

    parameters: list[nn.Parameter]
    optimizer: OptimizerFactory
    every_round: bool = False


class MethodLoss(NamedTuple):
    """The scalar that a micro-batch differentiates, all groups' shares in it, and figures for the log (``train/NAME``, ``NAME/FIGURE``)."""

    loss: Tensor
    logs: Logs


class Method(nn.Module, ABC):
    """Trains a generator. The training loop knows nothing else of it.

    Networks that only training uses are the method's own submodules; what restoring uses too belongs to the generator, because a
    checkpoint restores with the generator alone. A network that must neither train nor be saved (a teacher) has no parameter that
    requires a gradient.

    Args:
        parts: what was built before it.
        optimizer: makes the optimizer of the generator.

    Raises:
        UserError: ``parts`` are not what the method trains with (another generator, terms where it has a loss of its own, another stage).
    """

    def __init__(self, parts: Parts, *, optimizer: OptimizerFactory) -> None:
        super().__init__()
        self.generator = parts.generator
        self.optimizer = optimizer

    def groups(self) -> dict[str, Group]:
        """Return what trains, by name; the first is :data:`GENERATOR`, and together they hold every parameter that trains, once."""
        return {GENERATOR: Group(parameters=self.generator.trainable_parameters(), optimizer=self.optimizer)}

    @abstractmethod
    def loss(self, batch: TrainingBatch) -> MethodLoss:
        """Return the loss of a micro-batch that trains every group; ``train/loss`` among its figures is the generator's."""

    def shares(self, batch: TrainingBatch) -> Iterator[MethodLoss]:
        """Yield summands of :meth:`loss` whose graphs are disjoint, each to be differentiated before the next is asked for.

        One process can so free a graph before the next is built; under DDP one backward pass has all of them (docs/adr/0003).
        """
        yield self.loss(batch)

    def critics_loss(self, batch: TrainingBatch) -> MethodLoss:
        """Return the loss of a micro-batch that trains the groups of every round alone; methods without such a group are never asked."""
        raise NotImplementedError(f"{type(self).__name__} has no group that learns in every round")

    def saved(self) -> dict[str, nn.Parameter]:
        """Return by name what a checkpoint holds: all that trains, and what the generator keeps."""
        trained = {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
        return trained | {f"{GENERATOR}.{name}": parameter for name, parameter in self.generator.own_tensors().items()}


def refuse_terms(parts: Parts, method: str) -> None:
    """Raise UserError where loss terms are given to a method that has a loss of its own."""
    if parts.terms:
        raise UserError(f"method={method} has a loss of its own and takes no loss/terms ({', '.join(parts.terms)}): leave them out")


def right_generator(parts: Parts, method: str, kind: type[Generator]) -> None:
    """Raise UserError where the generator is another method's."""
    if not isinstance(parts.generator, kind):
        raise UserError(f"method={method} trains a {kind.__name__}, not a {type(parts.generator).__name__}: leave generator= out")


def earlier_part(parts: Parts, name: str, kind: type[Kind]) -> Kind:
    """Return the generator of a finished stage; UserError where it is another method's."""
    found = parts.earlier[name]
    if not isinstance(found, kind):
        raise UserError(f"method.needs.{name} holds a {type(found).__name__}, and must be a {kind.__name__}: give another run")
    return found
