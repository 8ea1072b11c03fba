"""A started W&B run as a logger of Lightning's."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from pytorch_lightning.loggers import Logger

from osediff_exp.callbacks.wandb_history import pictures_until, rows_until
from osediff_exp.callbacks.wandb_record import WandbRecord, sync_command, write_record

if TYPE_CHECKING:
    from wandb import Run

log = logging.getLogger(__name__)

STEP = "trainer/global_step"  # the key under which Lightning, and so most projects, logs the optimizer step


class WandbRun(Logger):
    """A started W&B run. The first call that fails ends its use: the training goes on without it.

    W&B's own step counts calls; the optimizer step is the key ``trainer/global_step``, which every plot takes as its axis.

    Args:
        run: as ``wandb.init`` returns it.
        folder: the run folder, whose ``wandb/record.json`` says what became of the run.
        record: what stands there.
    """

    def __init__(self, run: Run, folder: Path, record: WandbRecord) -> None:
        super().__init__()
        self._run: Run | None = run
        self._folder, self._record = folder, record
        run.define_metric(STEP)
        run.define_metric("*", step_metric=STEP, step_sync=True)

    @property
    def name(self) -> str:
        return "wandb"

    @property
    def version(self) -> str:
        return self._record.id

    @property
    def sync_command(self) -> str:
        """The command that sends the run where it was logged offline."""
        return sync_command([self._folder / "wandb" / self._record.files])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures under the keys of metrics.csv."""
        self._try(lambda run: run.log({**metrics, STEP: step or 0}))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: the run started with the whole configuration."""

    def log_images(self, pictures: list[tuple[str, Image.Image]], *, step: int) -> None:
        """Log pictures (name, picture) under ``val/pictures``."""
        import wandb

        names = tuple(name for name, _ in pictures)
        if self._run is not None and names != self._record.pictures:
            self._record = replace(self._record, pictures=names)
            write_record(self._folder, self._record)
        # Pictures are given directly: those inside a W&B Table would be kept outside the run folder.
        self._try(lambda run: run.log({"val/pictures": [wandb.Image(picture, caption=name) for name, picture in pictures], STEP: step}))

    def replay(self, step: int, pictures: Iterable[str]) -> None:
        """Log what the run folder holds of the steps up to ``step``; ``pictures`` names those that earlier starts have logged."""
        for number, figures in rows_until(self._folder, step):
            self.log_metrics(figures, number)
        for number, shown in pictures_until(self._folder, step, tuple(pictures)):
            self.log_images(shown, step=number)

    def finish(self, figures: Mapping[str, Any], *, exit_code: int = 0) -> None:
        """End the run: ``figures`` (those of result.json) become its summary. Takes ``finish_timeout`` seconds at most."""
        self._try(lambda run: run.summary.update({key: value for key, value in figures.items() if value is not None}))
        self._try(lambda run: run.finish(exit_code=exit_code))
        if self._run is not None:
            self._record = replace(self._record, uploaded=not self._run.offline)
            write_record(self._folder, self._record)
        self._run = None

    def finalize(self, status: str) -> None:
        """End the run of a training that failed; Lightning also calls this after each successful fit and validation."""
        if status != "success":
            self.finish({}, exit_code=1)

    def _try(self, action: Callable[[Run], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # W&B's own errors are many; none of them may stop a training
            self._run = None
            fault, command = first_line(error), self.sync_command
            log.warning("W&B has failed (%s): the run goes on without it; send what is there later: %s", fault, command)


def log_pictures(loggers: list[Logger], pictures: list[tuple[str, Image.Image]], *, step: int) -> None:
    """Log pictures (name, picture) under ``val/pictures`` to the W&B runs among ``loggers``."""
    for logger in loggers:
        if isinstance(logger, WandbRun) and pictures:
            logger.log_images(pictures, step=step)


@contextmanager
def closed_as_failed(loggers: Iterable[Logger]) -> Iterator[None]:
    """Close the W&B runs among ``loggers`` as failed if the block ends with an error: Lightning does so for errors inside fit only."""
    try:
        yield
    except BaseException:
        for logger in loggers:
            if isinstance(logger, WandbRun):
                logger.finish({}, exit_code=1)
        raise


def first_line(error: Exception) -> str:
    """Return what an error says in one line, its name where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
