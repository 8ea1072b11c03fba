"""checkpoints/last.ckpt, written whole or not at all, and the one before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from osediff_exp.bad_steps import all_finite
from osediff_exp.checkpoints.integrity import put_in_place
from osediff_exp.errors import UserError


class LastCheckpoint(pl.Callback):
    """Save ``folder/last.ckpt`` every ``every`` optimizer steps and at the end; ``previous.ckpt`` is the one before.

    Lightning's own ModelCheckpoint counts every optimizer's step, which is a multiple of ours; this one counts the generator's.
    """

    def __init__(self, *, every: int, folder: str | None = None) -> None:
        self.every = every
        self.folder = Path(folder) if folder else None
        self._saved = -1

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.folder = self.folder or Path(trainer.default_root_dir) / "checkpoints"
        # Last in the list, so that the other callbacks (the moving average) have finished the step that is saved.
        trainer.callbacks = [callback for callback in trainer.callbacks if callback is not self] + [self]  # type: ignore[attr-defined]

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = pl_module.steps_taken
        if step != self._saved and pl_module._micro_batch == 0 and (step % self.every == 0 or step >= pl_module.max_steps):
            self.save(trainer, step)

    def save(self, trainer: pl.Trainer, step: int) -> None:
        """Write the state after ``step`` optimizer steps; to be called between two steps.

        Raises:
            UserError: a weight is not finite: no later step can mend that, and the checkpoint of before is kept.
        """
        assert self.folder is not None
        weights = [weight for weight in trainer.lightning_module.parameters() if weight.requires_grad]
        if not all_finite(weights):
            raise UserError(
                f"some weights are not finite after step {step}: the last good checkpoint is kept; try a lower learning rate or another "
                "precision"
            )
        temporary = self.folder / "last.ckpt.part"
        self.folder.mkdir(parents=True, exist_ok=True)
        for logger in trainer.loggers:
            logger.save()  # a run killed right after this goes on here, with the figures of all steps before
        try:
            trainer.save_checkpoint(temporary)  # every rank takes part, rank 0 writes
            if trainer.is_global_zero:
                put_in_place(temporary)
        except BaseException:
            temporary.unlink(missing_ok=True)  # a full disk needs the room
            raise
        self._saved = step


class PretrainingCheckpoint(LastCheckpoint):
    """The same for a module whose optimizer Lightning steps: its steps are the trainer's, and the end leaves weights, no checkpoint."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step != self._saved and step > 0 and step % self.every == 0:
            self.save(trainer, step)
