"""SinSR's training: distillation, inversion, ground truth."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from osediff_exp.errors import UserError
from osediff_exp.methods.base import Method, MethodLoss, OptimizerFactory, Parts, earlier_part, refuse_terms, right_generator
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.resshift.generator import ResShiftGenerator
from osediff_exp.methods.sinsr.generator import SinSRGenerator
from osediff_exp.models.without_gradients import without_gradients

CLEAN = 1
"""The paper's t whose network index is 0, at which the student maps a clean latent to its start (released code's ``t=0``)."""


class SinSR(Method):
    """Distil a trained ResShift into one step.

    With f the student, z_T the start and z_0' the teacher's deterministic result from that start::

        |f(z_T, y, T) - z_0'|^2 + inversion |f(z_0', y, 0) - z_T|^2 + truth |f(stopgrad f(z_0, y, 0), y, T) - z_0|^2

    The student starts with the teacher's weights.

    Args:
        parts: with a :class:`SinSRGenerator`, and ``earlier["teacher"]``, a :class:`ResShiftGenerator` of the same schedule.
        optimizer: of the student.
        inversion_weight, truth_weight: of the second and third summand (released: 1 and 1).

    Raises:
        UserError: the teacher has another schedule.
    """

    generator: SinSRGenerator

    def __init__(self, parts: Parts, *, optimizer: OptimizerFactory, inversion_weight: float = 1.0, truth_weight: float = 1.0) -> None:
        super().__init__(parts, optimizer=optimizer)
        refuse_terms(parts, "sinsr")
        right_generator(parts, "sinsr", SinSRGenerator)
        self.teacher = earlier_part(parts, "teacher", ResShiftGenerator)
        self.teacher.set_sampling(steps=self.teacher.schedule.T)
        if self.teacher.schedule != self.generator.schedule:
            theirs, own = self.teacher.schedule, self.generator.schedule
            raise UserError(f"the teacher has {theirs}, the student {own}: set generator.T, m, p and kappa to the teacher's")
        self.generator.unet.load_state_dict(self.teacher.unet.state_dict())
        self.inversion_weight, self.truth_weight = inversion_weight, truth_weight

    def loss(self, batch: TrainingBatch) -> MethodLoss:
        z_0, y = self.generator.encode(batch.hq), self.generator.encode(batch.lq)
        z_T = self.generator.schedule.start(y, batch.noise("sinsr/start", tuple(y.shape[1:])))
        with without_gradients():
            taught = self.teacher.descend(z_T, y, None)
            inverted = self._student(z_0, y, CLEAN)
        parts = {
            "distillation": F.mse_loss(self._student(z_T, y, self.generator.schedule.T), taught),
            "inversion": F.mse_loss(self._student(taught, y, CLEAN), z_T),
            "truth": F.mse_loss(self._student(inverted, y, self.generator.schedule.T), z_0),
        }
        loss = parts["distillation"] + self.inversion_weight * parts["inversion"] + self.truth_weight * parts["truth"]
        logs = {f"train/{name}": part.detach() for name, part in parts.items()}
        return MethodLoss(loss, logs | {"train/loss": loss.detach()})

    def _student(self, z: Tensor, y: Tensor, t: int) -> Tensor:
        return self.generator.predict(z, y, t)
