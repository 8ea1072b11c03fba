"""ST-LPIPS between random views of both pictures: two cures of the ripples that did not work. The command stands in README.md."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput
from osediff_exp.models.perceptual import MINIMUM_SIZE, st_lpips_distance
from osediff_exp.randomness import numpy_generator, torch_generator


class ViewedSTLPIPSLoss(LossTerm):
    """ST-LPIPS(V(x_hat) + n, V(x_H) + n), V and n anew at each step and the same for both pictures (after E-LPIPS, arXiv 1906.03973).

    Args:
        weight: of the term.
        zoom: V enlarges by a factor between 1 / zoom and zoom, turns, mirrors and permutes colours; 1: no view.
        noise: standard deviation of n, for pictures in [-1, 1].
    """

    def __init__(self, *, weight: float, zoom: float, noise: float) -> None:
        super().__init__(weight=weight)
        self.distance = st_lpips_distance("alex")
        self.zoom, self.noise = zoom, noise

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the mean over the batch; gradient reaches ``inputs.output`` only."""
        pictures = torch.cat([inputs.output, inputs.target.detach()])
        if self.zoom != 1:
            pictures = self._view(pictures, inputs.seed, inputs.step)
        output, target = pictures.chunk(2)
        noise = self.noise * torch.randn(output.shape, generator=torch_generator(inputs.seed, "st_lpips/noise", inputs.step))
        return TermOutput(self.distance(output + noise, target + noise).mean())

    def _view(self, pictures: Tensor, seed: int, step: int) -> Tensor:
        generator = numpy_generator(seed, "st_lpips/views", step)
        factor = math.exp(generator.uniform(-math.log(self.zoom), math.log(self.zoom)))
        turns, mirrored, colours = int(generator.integers(4)), bool(generator.integers(2)), torch.tensor(generator.permutation(3))
        side = max(MINIMUM_SIZE, round(pictures.shape[-1] * factor))
        seen = torch.rot90(F.interpolate(pictures, size=(side, side), mode="bicubic", antialias=True), turns, (2, 3))
        return (seen.flip(3) if mirrored else seen)[:, colours]
