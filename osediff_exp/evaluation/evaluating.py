"""Run restorers over a test set: restore, save, score. One restorer lives at a time; one that fails does not cost the others."""

from __future__ import annotations

import gc
import math
import statistics
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from osediff_exp.errors import UserError
from osediff_exp.evaluation.kept import KeptPictures, save_original
from osediff_exp.evaluation.pair_sets import Problem
from osediff_exp.reporting.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor

    from osediff_exp.checkpoints.training_identity import Training
    from osediff_exp.evaluation.arms import Arm
    from osediff_exp.evaluation.pair_sets import Pair, PairSet
    from osediff_exp.evaluation.scoring import Measured, Row, Scorer
    from osediff_exp.restoration.base import ImageRestorer
    from osediff_exp.restoration.progress import FileProgress


class Watcher:
    """Is told how far an evaluation is; this one keeps it to itself."""

    def start(self, name: str) -> None:
        """A picture's turn has come."""

    def step(self, done: int, steps: int) -> None:
        """The restorer has done ``done`` of the picture's ``steps``."""

    def advance(self) -> None:
        """The picture is done with."""


@dataclass
class ArmResult:
    """What one restorer reached.

    Attributes:
        label: of the restorer.
        rows: per picture ``name`` and one figure per metric; of a set metric the picture's contribution.
        averages: by metric, finite ones only; none where the restorer failed.
        notes: sentences on pictures for which a metric has no figure.
        lacking: the metrics that those notes are of.
        problems: pictures that it did not restore.
        failed: clauses on metrics that failed at some of its pictures.
        error: why the restorer failed as a whole, else empty.
        restore_seconds: of each picture.
        metrics_seconds: spent in all by this call; figures that were found again took none.
        steps: that it takes for a picture; None: not known.
        method: that trained it; None: not known.
        color_fix: that it applies to its outputs; None: not known.
        training: that its weights are of; None: not known.
        originals: what tells the originals that it was scored against from others.
    """

    label: str
    rows: list[Row] = field(default_factory=list)
    averages: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    error: str = ""
    restore_seconds: list[float] = field(default_factory=list)
    metrics_seconds: float = 0.0
    steps: int | None = None
    method: str | None = None
    color_fix: str | None = None
    training: Training | None = None
    originals: str = ""

    @property
    def seconds_per_image(self) -> float:
        """Median seconds of restoring one picture; NaN where none was restored."""
        return statistics.median(self.restore_seconds) if self.restore_seconds else math.nan


def evaluate_arm(
    arm: Arm,
    pairs: PairSet,
    *,
    scorer: Scorer,
    pictures_dir: Path,
    log_dir: Path,
    originals_dir: Path | None = None,
    watcher: Watcher | FileProgress | None = None,
    settings: str | None = None,
    measure: Callable[[Tensor, Tensor], Measured] | None = None,
) -> ArmResult:
    """Restore, save and score every pair with one restorer.

    The 8-bit picture is scored, as it is saved: the field scores files. What a restorer raises costs that restorer alone: a UserError on
    one picture counts against the picture, anything else against the restorer. What a metric raises costs its figure of that picture.

    Args:
        arm: the restorer.
        pairs: the test set.
        scorer: fresh.
        pictures_dir: gets ``LABEL/NAME.png``.
        originals_dir: gets ``NAME.png``, the originals; None: nothing is written.
        log_dir: gets ``LABEL.error.log``, a traceback, where the restorer fails with anything but a UserError, and
            ``LABEL.METRIC.error.log`` where a metric does.
        watcher: is told of each picture, and of the steps within it.
        settings: see :class:`KeptPictures`; pictures that lie there already are not restored again.
        measure: asked in place of ``scorer.measure`` (see :class:`KeptScores`).
    """
    result = ArmResult(arm.label)
    kept = KeptPictures(pictures_dir / arm.label, settings)
    _evaluate_pairs(arm, pairs, result, scorer, measure or scorer.measure, kept, log_dir, originals_dir, watcher or Watcher())
    free_memory()  # nothing refers to the restorer any more, and the next one loads its own networks
    result.rows, result.notes, result.lacking = scorer.table(), scorer.notes(), list(scorer.gaps())
    if result.rows and not result.error:
        result.averages = {key: value for key, value in scorer.averages().items() if value is not None and math.isfinite(value)}
    result.failed, result.originals = scorer.failed(), scorer.originals
    scorer.write_tracebacks(log_dir, f"{result.label}.")
    return result


def _evaluate_pairs(
    arm: Arm,
    pairs: PairSet,
    result: ArmResult,
    scorer: Scorer,
    measure: Callable[[Tensor, Tensor], Measured],
    kept: KeptPictures,
    log_dir: Path,
    originals_dir: Path | None,
    watcher: Watcher | FileProgress,
) -> None:
    with _failure_noted(result, log_dir):
        restorer = arm.build()
        result.steps, result.method, result.color_fix = restorer.steps, restorer.method, restorer.color_fix
        result.training = restorer.training
        restorer.tell_steps(watcher.step)
    for pair in pairs:
        watcher.start(pair.name)
        if originals_dir is not None:
            save_original(originals_dir, pair)
        restored = None if result.error else kept.find(pair)
        if restored is None and not result.error:
            with _failure_noted(result, log_dir):
                restored = _restore(restorer, pair, result)
            if restored is not None:
                kept.save(pair, *restored)
        if restored is not None:
            picture, seconds = restored
            result.restore_seconds.append(seconds)
            started = time.perf_counter()
            scorer.keep(pair.name, measure(picture, pair.hr))
            result.metrics_seconds += time.perf_counter() - started
        watcher.advance()


@contextmanager
def _failure_noted(result: ArmResult, log_dir: Path) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        result.error = str(error)
    except Exception as error:  # memory, a library's own error: the other restorers still count
        result.error = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        write_atomically(log_dir / f"{result.label}.error.log", traceback.format_exc())


def _restore(restorer: ImageRestorer, pair: Pair, result: ArmResult) -> tuple[Tensor, float] | None:
    """Return the picture as it is saved, and the seconds that it took."""
    started = time.perf_counter()
    try:
        restored = restorer(pair.lr, scale=pair.scale, names=[pair.name])
    except UserError as error:
        result.problems.append(Problem(pair.name, "not restored", str(error)))
        return None
    if lost := restored.numel() - int(restored.isfinite().sum()):  # no file can hold them, and no metric makes anything of them
        result.problems.append(Problem(pair.name, "not finite", f"{lost} of {restored.numel()} values are NaN or infinite"))
        return None
    return on_8_bit_grid(restored), time.perf_counter() - started


def on_8_bit_grid(images: Tensor) -> Tensor:
    """Return ``images`` (any shape, [0, 1]) with every value at the nearest multiple of 1/255."""
    return images.clamp(0, 1).mul(255).round().div(255)


def free_memory() -> None:
    """Give back what the last restorer held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
