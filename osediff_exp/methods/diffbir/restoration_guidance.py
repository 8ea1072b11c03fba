"""DiffBIR's restoration guidance: the chain is pulled to the cleaned picture where that is flat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, final, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.errors import UserError, nearest

Space = Literal["rgb", "latent"]

_UNIT = 3000.0  # the released code's factor on the scale
_LUMA = (0.2989, 0.5870, 0.1140)


@final
class RestorationGuidance:
    """x0 <- x0 - 3000 s grad of mean(w (x - x_clean)^2), w = 1 on flat regions, less at edges (DiffBIR, section 3.3, algorithm 1).

    Args:
        scale: s; 0 turns it off.
        space: ``rgb`` compares decoded pictures, weighted; ``latent`` compares latents, where the weight is 1 as edges cannot be seen.
        t_start, t_stop: it acts at timesteps t_stop < t < t_start.

    Raises:
        UserError: a negative scale or an unknown space.
    """

    def __init__(self, *, scale: float, space: Space = "rgb", t_start: int = 1001, t_stop: int = -1) -> None:
        if scale < 0:
            raise UserError(f"the restoration guidance's scale={scale} must not be negative: 0 turns it off")
        if space not in get_args(Space):
            raise UserError(f"the restoration guidance's space={space} is unknown: use rgb or latent.{nearest(space, get_args(Space))}")
        self.scale, self.space, self.t_start, self.t_stop = scale, space, t_start, t_stop

    def adjust(self, x0: Tensor, t: Tensor, *, cleaned: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the guided estimate (B, C, h, w), without a graph.

        Args:
            x0: estimate of the scaled latents, (B, C, h, w).
            t: timesteps (B,), all alike in a chain.
            cleaned: (B, 3, H, W) in [-1, 1] for ``rgb``; its scaled latents (B, C, h, w) for ``latent``.
            decode: from scaled latents to pictures in [-1, 1], differentiable; ``latent`` does not call it.
        """
        if self.scale == 0 or not self.t_stop < int(t[0]) < self.t_start:
            return x0
        with torch.inference_mode(False), torch.enable_grad():  # also inside a restorer, which keeps no graphs
            latent, target = x0.detach().clone().requires_grad_(), cleaned.detach().clone()
            if self.space == "rgb":
                loss = (edge_weight(target) * (decode(latent) - target).square()).mean(dim=(1, 2, 3)).sum()
            else:
                loss = (latent - target).square().mean(dim=(1, 2, 3)).sum()
            (gradient,) = torch.autograd.grad(loss, latent)
        return x0 - _UNIT * self.scale * gradient


def edge_weight(picture: Tensor) -> Tensor:
    """Return 1 - tanh(sum of the luma's Sobel magnitude over blocks of 2 x 2), (B, 1, H, W), of pictures (B, 3, H, W) in [-1, 1].

    H and W must be even. 1 where the picture is flat.
    """
    luma = ((picture + 1) / 2 * picture.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    sobel = picture.new_tensor([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]])
    kernels = torch.stack([sobel, sobel.T])[:, None]
    slopes = F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="replicate"), kernels)
    magnitude = slopes.square().sum(dim=1, keepdim=True).sqrt()
    return 1 - F.interpolate((4 * F.avg_pool2d(magnitude, 2)).tanh(), scale_factor=2.0, mode="nearest")
