"""SinSR's student."""

from __future__ import annotations

from torch import Tensor

from osediff_exp.methods.resshift.schedule import ShiftSchedule
from osediff_exp.methods.resshift.shift_generator import ShiftGenerator
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Context, Noise


class SinSRGenerator(ShiftGenerator):
    """SinSR: z_0 = f(z_T, y, T) in one step from ResShift's start.

    Latents and U-Net are the teacher's, see :class:`osediff_exp.methods.resshift.generator.ResShiftGenerator`.

    Args:
        backbone, gradient_checkpointing: see :class:`ShiftGenerator`.
        T, m, p, kappa: of the teacher's schedule.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        T: int = 15,
        m: float = 0.04,
        p: float = 0.3,
        kappa: float = 2.0,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            backbone=backbone,
            schedule=ShiftSchedule(T=T, m=m, p=p, kappa=kappa),
            steps=1,
            max_steps=1,
            from_scratch=True,  # what it starts from is the teacher's
            gradient_checkpointing=gradient_checkpointing,
        )

    def sample(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise, context: Context) -> Tensor:
        y, z_T = self.started(lq, noise)
        z_0 = self.predict(z_T, y, self.schedule.T)
        self.tell(1)
        return z_0
