"""Scoring pictures one by one and as a set, whatever made them."""

from __future__ import annotations

import csv
import io
import math
import traceback
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import torch

from osediff_exp.errors import UserError
from osediff_exp.metrics.base import WITHOUT_FLOAT64, ImageMetric
from osediff_exp.metrics.set_metric import SetMetric
from osediff_exp.photo_units import STANDARD_ERROR, photos_of, standard_error
from osediff_exp.reporting.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from torch import Tensor
    from torchmetrics import Metric

Row = dict[str, str | float]
WHOLE_SET = "at the whole set"
"""Where a metric of sets fails that does so when its figure is computed."""


def build_metrics(factories: Mapping[str, Callable[[], Metric]]) -> tuple[dict[str, Metric], dict[str, str]]:
    """Build each metric; return those that could be built, and why the others could not.

    Only a UserError (also one that a factory wraps: its cause) makes a metric missing: weights or a package that cannot be had. Anything
    else is a bug and is raised.
    """
    metrics: dict[str, Metric] = {}
    missing: dict[str, str] = {}
    for key, factory in factories.items():
        try:
            metrics[key] = factory()
        except Exception as error:
            mistake = _users_mistake(error)
            if mistake is None:
                raise
            missing[key] = str(mistake)
    return metrics, missing


def _users_mistake(error: BaseException | None) -> UserError | None:
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


@dataclass(frozen=True)
class Failure:
    """An error inside a metric: what it says, in a line, and its traceback."""

    reason: str
    traceback: str


@dataclass(frozen=True)
class Measured:
    """What the metrics say of one picture: figures, what the metrics of the set need of it (absent where it is too small for one), why
    some refused it, the errors of those that failed, and what tells its original from another (its pixels' hash)."""

    figures: dict[str, float]
    described: dict[str, list[Tensor]]
    original: str
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)


class Scorer:
    """Scores pictures against their originals: a row per picture, and averages over them.

    Args:
        metrics: by the field's column names. An ImageMetric gives every picture a figure; a SetMetric (kid, FID) sees all pictures and
            gives one figure for the set.
        missing: metrics that could not be built, and why; they stand in the averages as None.
        device: where metrics that hold a network compute. The others stay on the CPU: the same bits everywhere. On mps all do: metrics
            add up in float64, which it lacks.

    Attributes:
        rows: per picture ``name`` and the figures; NaN where a metric has none (a flat picture, one too small for it, or one at which it
            failed: the other pictures and metrics still count).
        failures: metric -> picture, or ``WHOLE_SET``, -> the error.
    """

    def __init__(self, metrics: Mapping[str, Metric], missing: Mapping[str, str] | None = None, *, device: str = "cpu") -> None:
        self.metrics, self.missing = dict(metrics), dict(missing or {})
        self.rows: list[Row] = []
        self._networks = [metric for metric in self.metrics.values() if next(metric.parameters(), None) is not None]
        self._set_metrics = {key: metric for key, metric in self.metrics.items() if isinstance(metric, SetMetric)}
        self._members: dict[str, list[str]] = {key: [] for key in self._set_metrics}  # the pictures in each one's set, in order
        self._originals: dict[str, str] = {}
        self._reasons: dict[str, str] = {}
        self.failures: dict[str, dict[str, Failure]] = {}
        for metric in self._networks:
            metric.to("cpu" if device.startswith(WITHOUT_FLOAT64) else device)

    @property
    def has_networks(self) -> bool:
        """Whether a metric holds a network: those use all cores by themselves, and not all can be called from several threads."""
        return bool(self._networks)

    def add(self, name: str, pred: Tensor, target: Tensor) -> Row:
        """Score one picture and return its row.

        Args:
            name: of the picture.
            pred: the output, (3, H, W) or (1, 3, H, W) RGB in [0, 1]; scored as it is, so round to 8 bit first what is saved with 8.
            target: the original, of the same shape.
        """
        return self.keep(name, self.measure(pred, target))

    def keep(self, name: str, measured: Measured) -> Row:
        """Add what :meth:`measure` has returned for the picture ``name``, and return its row."""
        for key, described in measured.described.items():
            self._set_metrics[key].keep(described)
            self._members[key].append(name)
        for key, reason in measured.refused.items():
            self._reasons.setdefault(key, reason)
        for key, failure in measured.failed.items():
            self._note_failure(key, name, failure)
        self._originals[name] = measured.original
        self.rows.append({"name": name, **measured.figures})
        return self.rows[-1]

    def _note_failure(self, key: str, where: str, failure: Failure) -> None:
        self.failures.setdefault(key, {})[where] = failure
        self._reasons.setdefault(key, failure.reason)

    @torch.inference_mode()
    def measure(self, pred: Tensor, target: Tensor) -> Measured:
        """Return what the metrics say of one picture (see :meth:`add`) and keep nothing; without networks it may run in several threads."""
        images = _batch(pred), _batch(target)
        measured = Measured({}, {}, original=pixels_hash(images[1]))
        for key, metric in self.metrics.items():
            try:
                if isinstance(metric, SetMetric):
                    measured.described[key] = metric.describe(*images)
                elif isinstance(metric, ImageMetric):
                    measured.figures[key] = math.nan
                    measured.figures[key] = metric.per_image(*(image.to(metric.device) for image in images)).item()
            except UserError as error:  # the picture is too small for this metric
                measured.refused[key] = str(error)
            except Exception as error:  # memory, a library's own error: hours of restoring must not be lost to it
                measured.failed[key] = _failure(error)
        return measured

    @property
    def originals(self) -> str:
        """What tells the originals that were scored against, with their names, from others: 16 hexadecimal digits."""
        lines = [f"{name}\0{digest}" for name, digest in sorted(self._originals.items())]
        return blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()

    def table(self) -> list[Row]:
        """Return the rows, each with the picture's contribution to the figures of the set, where a metric has contributions."""
        contributions = {key: self._set_figure(key)[1] for key in self._set_metrics}
        return [
            row | {key: found[name] for key, found in contributions.items() if (name := str(row["name"])) in found} for row in self.rows
        ]

    def _set_figure(self, key: str) -> tuple[float, dict[str, float]]:
        """Return a set metric's value and the contributions to it by picture; torchmetrics remembers both until a picture is added."""
        metric, names = self._set_metrics[key], self._members[key]
        if not names or WHOLE_SET in self.failures.get(key, {}):
            return math.nan, {}
        try:
            value = metric.compute().item()
        except Exception as error:
            self._note_failure(key, WHOLE_SET, _failure(error))
            return math.nan, {}
        return value, {} if metric.contributions is None else dict(zip(names, metric.contributions.tolist(), strict=True))

    def averages(self) -> dict[str, float | None]:
        """Return each metric's mean over the pictures that have a finite figure (NaN: none has), a set metric's value, None if missing.

        Beside a set metric ``KEY`` that has contributions stands its standard error, ``KEY_se``.
        """
        figures: dict[str, float | None] = {}
        for key in self.metrics:
            if key not in self._set_metrics:
                figures[key] = self._mean(key)
                continue
            figures[key], contributions = self._set_figure(key)
            if contributions:
                figures[key + STANDARD_ERROR] = standard_error(contributions, photos_of(str(row["name"]) for row in self.rows))
        return figures | dict.fromkeys(self.missing)

    def _mean(self, key: str) -> float:
        finite = [value for row in self.rows if math.isfinite(value := float(row[key]))]
        return math.fsum(finite) / len(finite) if finite else math.nan

    def gaps(self) -> dict[str, list[str]]:
        """Return, for each metric that has no finite figure for some picture, or could not take it into its set, those pictures' names."""
        keys = [key for key, metric in self.metrics.items() if isinstance(metric, ImageMetric)]
        without = {key: [str(row["name"]) for row in self.rows if not math.isfinite(float(row[key]))] for key in keys}
        without |= {key: [name for row in self.rows if (name := str(row["name"])) not in seen] for key, seen in self._members.items()}
        return {key: without[key] for key in self.metrics if without[key]}

    def notes(self) -> list[str]:
        """Return a sentence for each metric of :meth:`gaps`: how many pictures its average leaves out, and why."""
        texts = []
        for key, names in self.gaps().items():
            listed = f"{', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
            others = ", its average is over the others" if len(names) < len(self.rows) else ""
            texts.append(f"{key}: no figure for {len(names)} of {len(self.rows)} pictures ({listed}){others}; {self._reason(key)}")
        return texts

    def _reason(self, key: str) -> str:
        return self._reasons.get(key, "it is not defined for them, e.g. flat pictures")

    def failed(self) -> list[str]:
        """Return a clause for each metric without a figure for any picture, or that failed: at how many, or the whole set, and why."""
        gaps = self.gaps() if self.rows else {}
        alone = [key for key, names in gaps.items() if len(names) == len(self.rows) and key not in self.failures]
        texts = [f"{key} has no figure for any of {len(self.rows)} pictures: {self._reason(key)}" for key in alone]
        for key, failures in self.failures.items():
            names = [name for name in failures if name != WHOLE_SET]
            of_pictures = f"at {len(names)} of {len(self.rows)} pictures ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            where = " and ".join(filter(None, [of_pictures if names else "", WHOLE_SET if WHOLE_SET in failures else ""]))
            texts.append(f"{key} failed {where}: {next(iter(failures.values())).reason}")
        return texts

    def write_tracebacks(self, folder: Path, prefix: str = "") -> None:
        """Write ``PREFIXMETRIC.error.log`` with the first error of each metric that failed."""
        for key, failures in self.failures.items():
            write_atomically(folder / f"{prefix}{key}.error.log", next(iter(failures.values())).traceback)


def pixels_hash(image: Tensor) -> str:
    """Return a hash of a picture's sides and pixels, of 8 bit."""
    pixels = image.mul(255).round().byte().contiguous().cpu().numpy()
    return blake2b(pixels.tobytes(), digest_size=8, salt=repr(pixels.shape[-2:]).encode()[:16]).hexdigest()


def _failure(error: Exception) -> Failure:
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()
    return Failure(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "".join(traceback.format_exception(error)))


def _batch(image: Tensor) -> Tensor:
    if image.ndim not in (3, 4) or image.shape[-3] != 3 or (image.ndim == 4 and len(image) != 1):
        raise ValueError(f"expected one picture, (3, H, W) or (1, 3, H, W), got {tuple(image.shape)}")
    return image.reshape(1, *image.shape[-3:])


def write_per_image(path: Path, rows: Iterable[Mapping[str, str | float | None]]) -> None:
    """Write rows as CSV; columns in the order in which they first occur, so rows may carry more than a Scorer's.

    Figures have 8 significant digits; a cell without a finite figure is empty.
    """
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue())


def _cell(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.8g}" if math.isfinite(value) else ""
