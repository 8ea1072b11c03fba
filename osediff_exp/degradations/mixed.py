"""Several degradations in one training: each picture gets one of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from osediff_exp.degradations.base import Degradation, Image, LowQuality, check_image, check_scale
from osediff_exp.degradations.checks import checked_probability
from osediff_exp.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np


class MixedDegradation(Degradation):
    """Draws one of ``parts`` for every picture.

    Args:
        scale: of all parts.
        parts: the degradations, by name.
        shares: how often each part is drawn, by its name; they add up to 1.

    Raises:
        UserError: names differ, a part has another scale, or the shares do not add up.
    """

    def __init__(self, *, scale: int, parts: Mapping[str, Degradation], shares: Mapping[str, float]) -> None:
        self.scale = check_scale(scale)
        for name in shares:
            if name not in parts:
                raise UserError(f"degradation: shares.{name} is of no part: there are {', '.join(parts)}.{nearest(name, parts)}")
        for name, part in parts.items():
            if part.scale != self.scale:
                raise UserError(f"degradation: parts.{name} has scale={part.scale}, the mixture {self.scale}: give both the same")
            if name not in shares:
                raise UserError(f"degradation: shares.{name} is missing: say how often this part is drawn")
        self.parts = [(checked_probability(f"shares.{name}", shares[name]), part) for name, part in parts.items()]
        total = math.fsum(share for share, _ in self.parts)
        if not math.isclose(total, 1.0, abs_tol=1e-6):
            raise UserError(f"degradation: the shares add up to {total:g}, not to 1: {dict(shares)}")

    def __call__(self, hq: Image, rng: np.random.Generator) -> LowQuality:
        """Degrade by the part that ``rng`` draws first."""
        check_image(hq, self.scale)
        return self._part_at(rng.random())(hq, rng)

    def _part_at(self, place: float) -> Degradation:
        for share, part in self.parts:
            if place < share:
                return part
            place -= share
        return self.parts[-1][1]  # what rounding leaves
