"""The edge-aware perceptual term."""

from __future__ import annotations

from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput
from osediff_exp.losses.edges import edge_map
from osediff_exp.models.perceptual import st_lpips_distance


class EdgeSTLPIPSLoss(LossTerm):
    """ST-LPIPS(x_hat, x_H) + edge_weight ST-LPIPS(S(x_hat), S(x_H)) with Sobel edge maps S, means over the batch.

    The edge-aware DISTS of D3SR (Li et al., arXiv 2410.04224: DISTS of pictures plus DISTS of Sobel maps) with the perceptual distance
    whose weights come with the installation; :class:`~osediff_exp.losses.dists.DISTSLoss` is the original. It replaces st_lpips.
    """

    def __init__(self, *, weight: float, net: str = "alex", edge_weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.distance = st_lpips_distance(net)
        self.edge_weight = edge_weight

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the term; gradient reaches ``inputs.output`` only."""
        target = inputs.target.detach()
        pictures = self.distance(inputs.output, target)
        edges = self.distance(edge_map(inputs.output), edge_map(target))
        return TermOutput((pictures + self.edge_weight * edges).mean(), {"pictures": pictures.detach(), "edges": edges.detach()})
