"""ResShift's training."""

from __future__ import annotations

from torch.nn import functional as F

from osediff_exp.methods.base import Method, MethodLoss, OptimizerFactory, Parts, refuse_terms, right_generator
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.resshift.generator import ResShiftGenerator


class ResShift(Method):
    """Mean squared error of the network's z_0 at t ~ uniform{1..T}, all t alike (as released: ``weighted_mse`` is false).

    The published training warms up over 5,000 of 500,000 steps, then falls from 5e-5 to 2e-5 along a cosine; here the learning rate is
    constant, as every method's is. The journal version's LPIPS on the decoded output is not there. EMA is ``trainer.ema_decay`` (published:
    .999).

    Args:
        parts: with a :class:`ResShiftGenerator`, without loss terms.
        optimizer: of the U-Net.
    """

    generator: ResShiftGenerator

    def __init__(self, parts: Parts, *, optimizer: OptimizerFactory) -> None:
        super().__init__(parts, optimizer=optimizer)
        refuse_terms(parts, "resshift")
        right_generator(parts, "resshift", ResShiftGenerator)

    def loss(self, batch: TrainingBatch) -> MethodLoss:
        schedule = self.generator.schedule
        z_0, y = self.generator.encode(batch.hq), self.generator.encode(batch.lq)
        t = batch.timesteps("resshift/t", 1, schedule.T + 1)
        z_t = schedule.diffuse(z_0, y, batch.noise("resshift/noise", tuple(z_0.shape[1:])), t)
        each = F.mse_loss(self.generator.predict(z_t, y, t), z_0, reduction="none").mean(dim=(1, 2, 3))
        return MethodLoss(each.mean(), {"train/loss": each.mean().detach()})
