"""A metric of a whole set of pictures, which has no value for one of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torchmetrics import Metric

if TYPE_CHECKING:
    from torch import Tensor


class SetMetric(Metric, ABC):
    """Compares the restored pictures with the originals as two sets (FID). It stands in averages, never in a table of pictures."""

    is_differentiable = False
    full_state_update = False

    @abstractmethod
    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add a batch to both sets: restored images ``pred`` and originals ``target``, both (B, 3, H, W) RGB in [0, 1]."""

    @abstractmethod
    def compute(self) -> Tensor:
        """Return the score of the sets so far, a scalar; NaN where they are too small for one."""
