"""The base of the distillation terms that need the frozen prior alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, TypedDict

from torch import Tensor

from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput
from osediff_exp.losses.distillation import Noised, PriorEstimates, check_range, check_steps, noised, prior_estimates, pull
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.views import share_frozen


class PriorSettings(TypedDict):
    """The arguments of every term that needs the prior alone.

    Keys:
        weight: of the term.
        guidance: of the prior; t_min, t_max: t ~ uniform{t_min..t_max-1}; epsilon: see :func:`~osediff_exp.losses.distillation.normalizer`.
    """

    weight: float
    guidance: float
    t_min: int
    t_max: int
    epsilon: float


class PriorDistillationLoss(LossTerm):
    """Base of SDS and CSD: a gradient on z_hat made of the prior's estimates; no network of its own, no gradient through the U-Net."""

    purpose: ClassVar[str]
    """The term's name in configurations and in the keys of its random numbers."""

    def __init__(self, *, weight: float, guidance: float, t_min: int, t_max: int, epsilon: float) -> None:
        super().__init__(weight=weight)
        check_range(self.purpose, "t", t_min, t_max)
        self.guidance, self.t_min, self.t_max, self.epsilon = guidance, t_min, t_max, epsilon

    def attach(self, backbone: Backbone) -> None:
        check_steps(self.purpose, backbone.schedule, t_max=self.t_max)
        self.prior = share_frozen(backbone.unet)
        self.schedule = backbone.schedule

    @abstractmethod
    def gradient(self, at: Noised, x0: PriorEstimates) -> tuple[Tensor, Tensor]:
        """Return the direction away from which z_hat is pulled, (B, C, h, w), and the weight w (B,) that is in it."""

    def forward(self, inputs: LossInputs) -> TermOutput:
        at = noised(inputs.latent, inputs, self.schedule, self.purpose, self.t_min, self.t_max)
        x0 = prior_estimates(self.prior, at, inputs, self.schedule, self.guidance)
        gradient, w = self.gradient(at, x0)
        strength = gradient.abs().mean(dim=(1, 2, 3))
        return TermOutput(pull(inputs.latent.float(), gradient), {"gradient": strength, "w": w})
