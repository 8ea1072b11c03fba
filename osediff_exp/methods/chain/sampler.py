"""The seam between methods and samplers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from osediff_exp.methods.chain.denoising import Denoise
from osediff_exp.models.generator_base import Noise
from osediff_exp.models.noise_schedule import NoiseSchedule

Progress = Callable[[int, int], None]
"""``progress(done, steps)`` is called after each step."""


class Sampler(ABC):
    """Goes from a noisy latent to a clean one; a pure function of its arguments."""

    @abstractmethod
    def sample(
        self,
        denoise: Denoise,
        z: Tensor,
        *,
        schedule: NoiseSchedule,
        steps: int,
        noise: Noise,
        start: int | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Return latents x0 (B, C, h, w), float32.

        Args:
            denoise: is called once a step.
            z: latents at timestep ``start``, (B, C, h, w), scaled.
            schedule: abar_t and what ``denoise`` predicts.
            steps: calls of ``denoise``.
            noise: asked once for each step that adds noise; the purpose ``step/T`` names its timestep.
            start: the first timestep; None: the schedule's last.
            progress: hears of each step.

        Raises:
            UserError: the chain does not have so many steps.
        """
