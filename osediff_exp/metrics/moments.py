"""Moments of a set of pictures, kept picture by picture, so that the set without any one of them costs a subtraction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Number, sum and sum of outer products of rows of D numbers: (...), (..., D), (..., D, D). They add up over pictures."""

    count: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of_each(cls, pictures: Sequence[Tensor]) -> Moments:
        """Return the moments of each picture (P, D), stacked."""
        count = torch.tensor([len(rows) for rows in pictures], dtype=torch.float64)
        return cls(count, torch.stack([rows.sum(dim=0) for rows in pictures]), torch.stack([rows.T @ rows for rows in pictures]))

    def total(self) -> Moments:
        """Return those of all pictures together."""
        return Moments(self.count.sum(dim=0), self.first.sum(dim=0), self.second.sum(dim=0))

    def without_each(self) -> Moments:
        """Return, for each picture, those of all the others."""
        total = self.total()
        return Moments(total.count - self.count, total.first - self.first, total.second - self.second)

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Return mean (..., D) and unbiased covariance (..., D, D); NaN where fewer than two rows give none."""
        n = self.count[..., None]
        mean = self.first / n
        outer = mean[..., :, None] * mean[..., None, :]
        return mean, (self.second - n[..., None] * outer) / (n[..., None] - 1)
