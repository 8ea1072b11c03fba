"""Steps whose loss or gradient is not finite: how they are told, how they are counted, and when they end a training."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.whole_files import whole_file

log = logging.getLogger(__name__)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Tell whether no tensor holds NaN or infinity; one synchronisation, however many there are."""
    found = [tensor.detach() for tensor in tensors]
    return not found or bool(torch.nn.utils.get_total_norm(found, float("inf")).isfinite())


class BadSteps:
    """Judges each update of a step, counts those that are skipped, and ends a training that only skips.

    A loss or gradient that is not finite would spoil every weight that it touches, and the optimizer's averages with it: the update is
    left out, for all networks alike. Under fp16 a gradient that overflows while the loss is finite is how the scaler finds its factor: that
    update is skipped and counted too, but does not end the training before the factor is down to 1.

    Args:
        limit: bad steps in a row that end the training.

    Attributes:
        skipped: updates left out so far.
        in_a_row: bad steps up to now without a good one between them.
    """

    def __init__(self, *, limit: int) -> None:
        if limit < 1:
            raise UserError(f"max_bad_steps={limit} must be at least 1")
        self.limit, self.skipped, self.in_a_row = limit, 0, 0
        self._start_step()

    def _start_step(self) -> None:
        self._losses: list[Tensor] = []
        self._judged = 0
        self._batches: list[dict[str, Any]] = []
        self._bad, self._overflowed = False, False

    def see(self, loss: Tensor, batch: dict[str, Any]) -> None:
        """Note a micro-batch and its loss (a scalar) until the step ends."""
        self._losses.append(loss.detach())
        self._batches.append(batch)

    def judge(self, gradient_norms: Tensor, *, gather: Callable[[Tensor], Tensor] | None = None, scale: float = 1.0) -> bool:
        """Tell whether an update from the micro-batches since the last question may be made.

        All ranks get the same answer, and every rank must ask.

        Args:
            gradient_norms: (P,), of the networks that would be updated.
            gather: brings together what the ranks hold; None for one process.
            scale: the factor of fp16's scaler.
        """
        losses, self._judged = torch.stack(self._losses[self._judged :]), len(self._losses)
        flags = torch.stack([losses.isfinite().all(), gradient_norms.isfinite().all()]).float()  # not every backend gathers bool
        losses_finite, gradients_finite = (bool(ok) for ok in (gather(flags).reshape(-1, 2) if gather else flags[None]).all(dim=0))
        if losses_finite and gradients_finite:
            return True
        self.skipped += 1
        if losses_finite and scale > 1:
            self._overflowed = True
        else:
            self._bad = True
        return False

    def finish_step(self, step: int, folder: Path, *, rank: int = 0) -> None:
        """Close optimizer step ``step`` (from 1).

        Raises:
            UserError: it is the last of ``limit`` bad ones in a row. Its batch lies in ``folder/bad_batch.pt`` then, or, of a rank above
                0, in ``folder/bad_batch_rank1.pt``.
        """
        if self._bad:
            self.in_a_row += 1
            log.warning("step %d is skipped: its loss or gradient is not finite (%d in a row)", step, self.in_a_row)
        elif not self._overflowed:
            self.in_a_row = 0
        if self.in_a_row >= self.limit:
            path = folder / (f"bad_batch_rank{rank}.pt" if rank else "bad_batch.pt")
            try:
                self._save(path, step)
                batch = f"is in {path}"
            except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
                batch = f"could not be saved ({type(error).__name__})"
            raise UserError(
                f"{self.limit} steps in a row, up to step {step}, had a loss or gradient that is not finite: none changed a weight, "
                f"and the last batch {batch}; try a lower learning rate, other loss weights or another precision"
            )
        self._start_step()

    def _save(self, path: Path, step: int) -> None:
        batches = [{key: _on_cpu(value) for key, value in batch.items()} for batch in self._batches]
        with whole_file(path) as temporary:
            torch.save({"step": step, "losses": [float(loss) for loss in self._losses], "batches": batches}, temporary)

    def state_dict(self) -> dict[str, int]:
        """Return the counts, for a checkpoint."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on with the counts of a checkpoint; one without them counts from 0."""
        self.skipped, self.in_a_row = state.get("skipped", 0), state.get("in_a_row", 0)


def _on_cpu(value: Any) -> Any:
    return value.cpu() if isinstance(value, Tensor) else value
