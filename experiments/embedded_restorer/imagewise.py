"""ST-LPIPS whose features are scaled per layer and picture, not per pixel, so that flat areas count for what is in them: a cure of the
ripples that did not work. The command stands in README.md."""

import torch

from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput
from osediff_exp.models.perceptual import st_lpips_distance


class ImagewiseSTLPIPSLoss(LossTerm):
    """Sum over layers of mean over pixels of w . (f(x_hat) - f(x_H))^2, over the mean squared length of f(x_H) in its picture."""

    def __init__(self, *, weight: float, net: str) -> None:
        super().__init__(weight=weight)
        self.distance = st_lpips_distance(net)

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the mean over the batch; gradient reaches ``inputs.output`` only."""
        own = self.distance
        outputs, targets = (own.trunk((picture - own.shift) / own.scale) for picture in (inputs.output, inputs.target.detach()))
        loss = torch.zeros(())
        for output, target, head in zip(outputs, targets, own.heads, strict=True):
            length = target.square().sum(dim=1, keepdim=True).mean(dim=(2, 3), keepdim=True)
            loss = loss + (((output - target).square() * head).sum(dim=1, keepdim=True) / length).mean()
        return TermOutput(loss)
