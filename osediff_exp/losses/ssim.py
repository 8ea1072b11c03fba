"""The structural similarity as a data term."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossInputs, LossTerm, TermOutput

WINDOW = 11


class SSIMLoss(LossTerm):
    """1 - SSIM(Y(x_hat), Y(x_H)), mean over the batch, beside mse or in its place (Zhao et al., "Loss Functions for Image Restoration with
    Neural Networks", IEEE TCI 3(1), 2017, eq. 5).

    SSIM as the metric ``ssim`` defines it (Wang et al., 2004: Gaussian window 11 x 11, sigma 1.5, only where it lies inside the picture,
    BT.601 luma in 16..235), but with luma as it is, not rounded to 8 bit, and with negative structure terms as they are: both are for the
    gradient's sake.
    """

    def forward(self, inputs: LossInputs) -> TermOutput:
        """Return the term, in float32 in any precision: it subtracts nearly equal moments.

        Raises:
            UserError: a side is shorter than the window.
        """
        if min(inputs.output.shape[-2:]) < WINDOW:
            raise UserError(f"the term ssim compares windows of {WINDOW} px: pictures of {tuple(inputs.output.shape[-2:])} are too small")
        with torch.autocast(inputs.output.device.type, enabled=False):
            x, y = _luma(inputs.output), _luma(inputs.target.detach())
            similarity = structural_similarity_index_measure(x, y, sigma=1.5, kernel_size=WINDOW, data_range=1.0)
        assert isinstance(similarity, Tensor)
        return TermOutput(1 - similarity)


def _luma(images: Tensor) -> Tensor:
    """(B, 3, H, W) RGB in [-1, 1] -> BT.601 luma Y / 255, (B, 1, H, W) in [16/255, 235/255]."""
    weights = torch.tensor([65.481, 128.553, 24.966], device=images.device) / 255
    return torch.einsum("bchw,c->bhw", images.float() / 2 + 0.5, weights)[:, None] + 16 / 255
