"""What the set-level metrics of patches share: the features of restored and of true patches, picture by picture."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch

from osediff_exp.metrics.base import check_pair
from osediff_exp.metrics.set_metric import SetMetric, SetScore
from osediff_exp.models.patch_features import PatchFeatures, patch_features

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


class PatchMetric(SetMetric):
    """A distance between the patches of the restored pictures and those of the originals.

    Args:
        features: maps (B, 3, H, W) in [0, 1] to each picture's features (P, D); None: :class:`PatchFeatures`.

    Raises:
        UserError: the network's weights are missing.
    """

    higher_is_better = False

    def __init__(self, *, features: Callable[[Tensor], list[Tensor]] | None = None) -> None:
        super().__init__()
        self.features: PatchFeatures | Callable[[Tensor], list[Tensor]] = features or patch_features()

    def describe(self, pred: Tensor, target: Tensor) -> list[Tensor]:
        """Return per picture (P, 2 D): the features of the restored patches beside those of the true ones."""
        check_pair(pred, target)
        return [torch.cat(pair, dim=1) for pair in zip(self.features(pred), self.features(target), strict=True)]

    def score(self, pictures: Sequence[Tensor]) -> SetScore:
        """Return :meth:`distance` of the restored pictures' features and the originals'."""
        restored, true = zip(*(rows.chunk(2, dim=1) for rows in pictures), strict=True)
        return self.distance(restored, true)

    @abstractmethod
    def distance(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> SetScore:
        """Return the score of the features of restored pictures ``x`` and originals ``y``, N of each, (P, D) float64."""
