"""What all image metrics share: a score for every image, averaged over images and ranks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torchmetrics import Metric

from osediff_exp.errors import UserError

WITHOUT_FLOAT64 = ("mps",)
"""Kinds of devices that lack the type in which metrics add up: there metrics stay on the CPU."""


class ImageMetric(Metric, ABC):
    """Mean over all images seen of a per-image score; sum and count are added up over ranks, so every image counts once.

    An image without a finite score (a flat picture has no NIQE) is left out of the mean, in trainings as in evaluations.

    A subclass defines :meth:`per_image` and says whether higher is better. Shapes and ranges are those of :meth:`update`.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @abstractmethod
    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the scores (B,) of ``pred`` against ``target``, both (B, 3, H, W) RGB in [0, 1]."""

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add a batch: restored images ``pred`` and ground truth ``target``, both (B, 3, H, W) RGB in [0, 1]."""
        self.add(pred, target)

    def add(self, pred: Tensor, target: Tensor) -> Tensor:
        """Do what :meth:`update` does and return the batch's scores (B,)."""
        scores = self.per_image(pred, target)
        finite = scores[scores.isfinite()]
        self.total += finite.double().sum().to(self.total.device)
        self.count += finite.numel()
        # torchmetrics notes an update by wrapping update() alone; this counts as one too.
        self._update_count = max(self._update_count, 1)
        self._computed = None
        return scores

    def compute(self) -> Tensor:
        """Return the mean of the finite scores (scalar, float32); NaN where there is none."""
        return (self.total / self.count).float()


def check_pair(pred: Tensor, target: Tensor) -> None:
    """Raise ValueError unless both are (B, 3, H, W) of one shape."""
    if pred.shape != target.shape or pred.ndim != 4 or pred.shape[1] != 3:
        raise ValueError(f"expected two (B, 3, H, W) tensors of one shape, got {tuple(pred.shape)} and {tuple(target.shape)}")


def check_size(images: Tensor, minimum: int, metric: str) -> None:
    """Raise UserError where the images (..., H, W) are smaller than ``minimum`` pixels on a side."""
    height, width = images.shape[-2:]
    if min(height, width) < minimum:
        raise UserError(
            f"{metric} needs images of at least {minimum} x {minimum} px, got {width} x {height} (width x height): "
            "use larger pictures or leave this metric out"
        )
