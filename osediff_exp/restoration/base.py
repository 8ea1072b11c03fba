"""What every restoration method offers, whether it takes one step, many, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from osediff_exp.checkpoints.training_identity import Training
    from osediff_exp.restoration.colour_fix import ColorFix


class ImageRestorer(ABC):
    """Enlarges and restores pictures. A method with many steps, or none (plain enlargement, a folder of finished outputs), fits as well.

    Attributes:
        steps: that it takes for a picture; None: it does not count in steps.
        method: the name of the method that trained it; None: not known, or none did.
        training: that its weights are of; None: not known, or none.
        color_fix: what gives its outputs the input's colours (see :class:`osediff_exp.restoration.restorer.Restorer`); None: not known.
    """

    steps: int | None = None
    method: str | None = None
    training: Training | None = None
    color_fix: ColorFix | None = None

    def tell_steps(self, on_step: Callable[[int, int], None]) -> None:  # noqa: B027 - most methods have nothing to tell
        """Let a method of many steps call ``on_step`` with (steps done, steps) while it works on a picture."""

    @abstractmethod
    def __call__(self, lr: Tensor, *, scale: int, names: list[str]) -> Tensor:
        """Restore a batch, deterministically.

        Args:
            lr: low-quality pictures (B, 3, h, w), float32 RGB in [0, 1] on the CPU.
            scale: whole number, 1..8, by which both sides grow.
            names: of the B pictures (file stems); for messages, and for methods that look outputs up.

        Returns:
            (B, 3, scale * h, scale * w), float32 in [0, 1] on the CPU, not rounded to 8 bit.
        """
