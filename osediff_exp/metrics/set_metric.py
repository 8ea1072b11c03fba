"""A metric of a whole set of pictures, and what each picture contributes to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class SetScore:
    """The figure of a set, a scalar (NaN where the set is too small), and each picture's contribution to it (N,), whose mean it is."""

    value: Tensor
    contributions: Tensor | None = None


class SetMetric(Metric, ABC):
    """Compares the restored pictures with the originals as two sets. A subclass says what it needs of a picture, and scores a set of those.

    Attributes:
        contributions: of the pictures (N,), in the order in which they were added (rank after rank), after :meth:`compute`; None where
            the metric has none. Two arms differ by the mean of their contributions' differences, picture by picture: that is what
            is tested (docs/adr/0016).
    """

    is_differentiable = False
    full_state_update = False
    rows: list[Tensor]
    counts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")
        self.add_state("counts", default=[], dist_reduce_fx="cat")
        self.contributions: Tensor | None = None

    @abstractmethod
    def describe(self, pred: Tensor, target: Tensor) -> list[Tensor]:
        """Return what the score needs of each picture of a batch, (P, F) with any P; it depends on nothing but that picture's pair.

        ``pred`` and ``target`` are restored images and originals, (B, 3, H, W) RGB in [0, 1].
        """

    @abstractmethod
    def score(self, pictures: Sequence[Tensor]) -> SetScore:
        """Score a set of at least one picture, each as :meth:`describe` has returned it, in float64 on the CPU."""

    def keep(self, described: Sequence[Tensor]) -> None:
        """Add pictures as :meth:`describe` has returned them."""
        self.rows += [rows.to(self.device) for rows in described]
        self.counts.append(torch.tensor([len(rows) for rows in described], device=self.device))
        # torchmetrics notes an update by wrapping update() alone; this counts as one too.
        self._update_count = max(self._update_count, 1)
        self._computed = None

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add a batch to both sets: restored images ``pred`` and originals ``target``, both (B, 3, H, W) RGB in [0, 1]."""
        self.keep(self.describe(pred, target))

    def compute(self) -> Tensor:
        """Return the score of the sets so far over all ranks, a scalar; NaN where they are too small for one or not finite."""
        if len(self.counts) == 0:  # a tensor after the reduction over ranks
            return torch.tensor(float("nan"))
        rows, counts = dim_zero_cat(self.rows).cpu().double(), dim_zero_cat(self.counts)
        if not rows.isfinite().all():  # a decomposition of them would raise
            self.contributions = None
            return torch.tensor(float("nan"))
        found = self.score(torch.split(rows, counts.tolist()))
        self.contributions = found.contributions
        return found.value.float()

    def reset(self) -> None:
        """Forget all pictures."""
        super().reset()
        self.contributions = None


def jackknife(whole: Tensor, without: Tensor) -> SetScore:
    """Return the score whose contributions are Tukey's pseudo-values N theta - (N - 1) theta_(-i), and whose value is their mean.

    ``whole`` is theta of all N pictures, ``without`` (N,) theta without the i-th. The mean is Quenouille's estimate, free of the bias of
    order 1/N; the pseudo-values' standard deviation over sqrt(N) is its standard error (B. Efron, C. Stein, "The Jackknife Estimate of
    Variance", Annals of Statistics 9(3), 1981). For a U-statistic the mean is theta itself.
    """
    n = len(without)
    contributions = n * whole - (n - 1) * without
    return SetScore(contributions.mean(), contributions)
