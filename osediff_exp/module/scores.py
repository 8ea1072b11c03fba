"""The scores of a validation: of the restored pictures, and of the bicubic enlargement beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.metrics.base import WITHOUT_FLOAT64, ImageMetric
from osediff_exp.metrics.set_metric import SetMetric
from osediff_exp.photo_units import STANDARD_ERROR, standard_error

BASELINE = "bicubic_"


class ValidationScores(nn.Module):
    """Scores pictures one by one, and as a set where a metric (kid, FID) is of sets only.

    Args:
        metrics: by name.

    Attributes:
        rows: per picture ``name``, a figure per :class:`ImageMetric`, and the same with the prefix ``bicubic_``; after :meth:`finish`
            those of all ranks, sorted by name, with each picture's contribution to the metrics of the set.
    """

    def __init__(self, metrics: Mapping[str, ImageMetric | SetMetric]) -> None:
        super().__init__()
        self.metrics = nn.ModuleDict(dict(metrics))
        self.baseline = nn.ModuleDict({BASELINE + name: metric.clone() for name, metric in metrics.items()})
        self.rows: list[dict[str, Any]] = []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> ValidationScores:
        """Do what ``to`` and its like do, but stay where float64 is when the module goes to a device without it."""
        return self if fn(torch.empty(0)).device.type in WITHOUT_FLOAT64 else super()._apply(fn, recurse)

    def start(self) -> None:
        """Forget the last validation's rows."""
        self.rows = []

    def add(self, names: list[str], output: Tensor, lq: Tensor, hq: Tensor) -> None:
        """Score restored pictures ``output`` and the enlarged ``lq`` against ``hq``, all (B, 3, H, W) in [0, 1]."""
        rows: list[dict[str, Any]] = [{"name": name} for name in names]
        for metrics, pictures in ((self.metrics, output), (self.baseline, lq)):
            for name, metric in metrics.items():
                place: Any = metric.device
                pair = pictures.float().to(place), hq.float().to(place)
                if not isinstance(metric, ImageMetric):
                    metric.update(*pair)  # type: ignore[operator]
                    continue
                for row, score in zip(rows, metric.add(*pair), strict=True):
                    row[name] = float(score)
        self.rows += rows

    def finish(self, *, world_size: int) -> dict[str, float]:
        """Return each metric's value over the pictures of all ranks (NaN: it has none); every rank must call this.

        Beside a metric of the set that has contributions stands its standard error, ``NAME_se``.
        """
        figures, contributions = {}, {}
        for name, metric in [*self.metrics.items(), *self.baseline.items()]:
            if self.rows or world_size > 1:
                figures[name] = float(metric.compute())  # type: ignore[operator]
            if isinstance(metric, SetMetric) and metric.contributions is not None:
                contributions[name] = metric.contributions.tolist()
            metric.reset()  # type: ignore[operator]
        if world_size > 1:
            gathered: list[Any] = [None] * world_size
            torch.distributed.all_gather_object(gathered, self.rows)
            self.rows = [row for rows in gathered for row in rows]  # rank after rank, as the contributions are
        for name, values in contributions.items():
            for row, value in zip(self.rows, values, strict=True):
                row[name] = value
            figures[name + STANDARD_ERROR] = standard_error({row["name"]: row[name] for row in self.rows})
        self.rows.sort(key=lambda row: row["name"])
        return figures


def with_figure(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return figure -> how many of the ``rows`` have a finite one, for the figures that some lack: their means leave those pictures out."""
    keys = dict.fromkeys(key for row in rows for key in row if key != "name" and not key.startswith(BASELINE))
    counts = {key: sum(math.isfinite(row.get(key, math.nan)) for row in rows) for key in keys}
    return {key: count for key, count in counts.items() if count < len(rows)}


def check_validation_share(num_pictures: int, world_size: int) -> None:
    """Raise UserError where a process would have no validation picture: Lightning passes it by, and the others wait for it for ever."""
    if 0 < num_pictures < world_size:
        pictures = f"{num_pictures} validation picture{'s' * (num_pictures > 1)}"
        raise UserError(
            f"{pictures} cannot be shared by {world_size} processes: give at least {world_size}, none at all, or set trainer.devices lower"
        )
