"""Ctrl-C and termination signals during a training: the step is finished and saved, so that going on loses nothing."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException

from osediff_exp.callbacks.checkpoint import LastCheckpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOTICE = b"stopping after this step, with a checkpoint (Ctrl-C again: at once)\n"


class StopAfterStep(pl.Callback):
    """At the first SIGINT or SIGTERM finish the optimizer step, write last.ckpt and stop; at the second stop at once.

    A signal that arrives while no step is under way (before the first, in a validation) stops at once too. A run of several processes
    is left to Lightning: its ranks get the signal at different steps, and one that saves would wait for the others.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._trainer: pl.Trainer | None = None
        self._asked: int | None = None

    @contextmanager
    def watching(self, trainer: pl.Trainer) -> Iterator[None]:
        """Handle the signals while the block trains; afterwards the handlers are those of before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Lightning would call another handler of ours beside its own
        else:
            signal.signal(signal.SIGINT, self._handle)  # here already: the loaders' worker processes inherit it
        try:
            yield
        except Exception as error:
            if self._asked is not None:  # a worker process that the same Ctrl-C has ended is no failure
                raise _stop(self._asked) from error
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer = trainer
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._handle)  # in place of Lightning's, which has just been set

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self._asked is None or pl_module._micro_batch != 0:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, LastCheckpoint):
                callback.save(trainer, pl_module.steps_taken)
        raise _stop(self._asked)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._trainer = None

    def _handle(self, number: int, frame: object) -> None:
        if os.getpid() != self._process:
            return _in_worker(number)
        if self._asked is not None or self._trainer is None or not self._trainer.training:
            raise _stop(number)
        self._asked = number
        os.write(2, _NOTICE)  # print may be what the signal has interrupted
        return None


def _stop(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SIGTERMException()


def _in_worker(number: int) -> None:
    """Answer as a loader's worker process: Ctrl-C is for the process that trains, which ends its workers itself."""
    if number == signal.SIGTERM:
        os._exit(128 + signal.SIGTERM)
