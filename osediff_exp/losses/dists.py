"""DISTS, and its edge-aware form, through the optional package pyiqa."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput
from osediff_exp.losses.edges import edge_map


class DISTSLoss(LossTerm):
    """DISTS(x_hat, x_H) + edge_weight DISTS(S(x_hat), S(x_H)) with Sobel edge maps S, means over the batch.

    Ding et al., TPAMI 2020; with the second summand it is the EA-DISTS of D3SR (arXiv 2410.04224). pyiqa (non-commercial licence)
    downloads DISTS' weights the first time.
    """

    def __init__(self, *, weight: float, edge_weight: float = 0.0) -> None:
        super().__init__(weight=weight)
        self.edge_weight = edge_weight
        self.distance = _dists()

    def train(self, mode: bool = True) -> DISTSLoss:
        """Stay in evaluation mode, whatever the training loop sets."""
        return super().train(False)

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the term; gradient reaches ``inputs.output`` only."""
        loss = self._distance(inputs.output, inputs.target.detach())
        if self.edge_weight == 0:
            return TermOutput(loss)
        edges = self._distance(edge_map(inputs.output).clamp(max=1.0), edge_map(inputs.target.detach()).clamp(max=1.0))
        return TermOutput(loss + self.edge_weight * edges, {"pictures": loss.detach(), "edges": edges.detach()})

    def _distance(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean DISTS of pictures in [-1, 1]; pyiqa wants [0, 1]."""
        return self.distance((output + 1) / 2, (target + 1) / 2).mean()


def _dists() -> nn.Module:
    try:
        import pyiqa
    except ImportError as error:
        raise UserError(
            "the term dists needs pyiqa: install it with `pip install osediff-exp[iqa]`, or choose edge_st_lpips, which works offline"
        ) from error
    try:
        metric: Any = pyiqa.create_metric("dists", as_loss=True, device="cpu")
    except Exception as error:  # whatever its downloads raise
        raise UserError(
            f"DISTS' weights could not be loaded ({type(error).__name__}): fetch them once with a network, or choose edge_st_lpips, "
            "which works offline"
        ) from error
    return metric.requires_grad_(False).eval()
