"""ResShift's sampler."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from osediff_exp.errors import UserError, nearest
from osediff_exp.methods.resshift.schedule import ShiftSchedule
from osediff_exp.methods.resshift.shift_generator import ShiftGenerator
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Context, Noise

Chain = Literal["ancestral", "deterministic"]


class ResShiftGenerator(ShiftGenerator):
    """ResShift: from z_T = y + kappa sqrt(eta_T) n down the chain's posterior, each step from the network's z_0.

    It departs from the published one in three things. The latents are the backbone's and the U-Net has the backbone's architecture and
    size, where theirs are a VQGAN's (3 channels, a quarter of the side) and a U-Net with Swin blocks (118 M parameters): every method here
    stands on the same networks. The U-Net's text attentions stay, and see one token of zeros: ResShift has no text. And fewer steps than T
    are allowed.

    Args:
        backbone, from_scratch, gradient_checkpointing: see :class:`ShiftGenerator`.
        T, m, p, kappa: of the schedule (published: 15, .04, .3, 2; journal version: 4, .2, .3, 2).
        steps: 1..T; None: T.
        chain: ``ancestral`` draws from the posterior; ``deterministic`` keeps the start's noise (SinSR).

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        T: int = 15,
        m: float = 0.04,
        p: float = 0.3,
        kappa: float = 2.0,
        steps: int | None = None,
        chain: Chain = "ancestral",
        from_scratch: bool = True,
        gradient_checkpointing: bool = False,
    ) -> None:
        if chain not in get_args(Chain):
            raise UserError(f"generator.chain={chain} is unknown: use {' or '.join(get_args(Chain))}.{nearest(chain, get_args(Chain))}")
        super().__init__(
            backbone=backbone,
            schedule=ShiftSchedule(T=T, m=m, p=p, kappa=kappa),
            steps=T if steps is None else steps,
            max_steps=T,
            from_scratch=from_scratch,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.chain = chain

    def sample(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise, context: Context) -> Tensor:
        y, z = self.started(lq, noise)
        return self.descend(z, y, noise if self.chain == "ancestral" else None)

    def descend(self, z: Tensor, y: Tensor, noise: Noise | None) -> Tensor:
        """Return z_0 at the end of the chain from z_T; without ``noise`` by the deterministic map. The last step adds none."""
        times = self.schedule.timesteps(self.steps)
        for done, (t, s) in enumerate(zip(times, [*times[1:], 0], strict=True), start=1):
            z_0 = self.predict(z, y, t)
            if noise is None:
                z = self.schedule.deterministic(z, z_0, y, s, t)
            else:
                z = self.schedule.posterior(z, z_0, s, t)
                if s > 0:
                    z = z + self.schedule.posterior_variance(s, t) ** 0.5 * noise(f"step/{t}", tuple(z.shape[1:])).to(z)
            self.tell(done)
        return z
