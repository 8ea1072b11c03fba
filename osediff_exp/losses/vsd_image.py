"""Variational score distillation of the output picture, re-encoded."""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor

from osediff_exp.losses.base import LossInputs, TermOutput
from osediff_exp.losses.distillation import encode_mode
from osediff_exp.losses.score_network import ScoreDistillationLoss, ScoreSettings
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.views import share_frozen


class VSDImageLoss(ScoreDistillationLoss):
    """VSD on z' = E(x_hat) instead of z_hat ("VSD in image space" of the OSEDiff paper's Table 3).

    E is the backbone's own frozen encoder, and z' the mode of its posterior (the paper does not say which; the mode adds no noise of its
    own). The gradient flows through E into the output picture, and from there through the decoder; the score network learns on detached z'.
    """

    purpose, score_purpose = "vsd_image", "vsd_image/score"

    def __init__(self, **settings: Unpack[ScoreSettings]) -> None:
        super().__init__(**settings)
        self._encoded: tuple[LossInputs, Tensor] | None = None

    def attach(self, backbone: Backbone) -> None:
        super().attach(backbone)
        self.vae = share_frozen(backbone.vae)
        self.scaling_factor = backbone.scaling_factor

    def forward(self, inputs: LossInputs) -> TermOutput:
        z = encode_mode(self.vae, inputs.output, self.scaling_factor)
        self._encoded = (inputs, z.detach())
        return self.match(z, inputs)

    def critic_loss(self, inputs: LossInputs) -> TermOutput:
        """Return the score network's denoising loss on detached z'."""
        return self.denoising(self._detached(inputs), inputs)

    def _detached(self, inputs: LossInputs) -> Tensor:
        """Return detached z'; the one that :meth:`forward` found for these inputs, if it ran: E is too costly to run twice."""
        encoded, self._encoded = self._encoded, None
        if encoded is not None and encoded[0] is inputs:
            return encoded[1]
        with torch.no_grad():
            return encode_mode(self.vae, inputs.output, self.scaling_factor)
