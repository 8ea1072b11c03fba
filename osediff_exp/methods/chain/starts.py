"""Where a chain starts: at pure noise, or at a latent noised to the first timestep."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from osediff_exp.diffusion import add_noise
from osediff_exp.errors import UserError, nearest
from osediff_exp.models.generator_base import Noise

Start = Literal["noise", "lr", "cond"]


def check_start(start: str) -> None:
    """Raise UserError for an unknown start point."""
    if start not in get_args(Start):
        raise UserError(f"start={start} is unknown: use {', '.join(get_args(Start))}.{nearest(start, get_args(Start))}")


def start_latent(start: Start, *, lr: Tensor, cond: Tensor | None, abar_t: Tensor, noise: Noise) -> Tensor:
    """Return the latents z_t (B, C, h, w), float32, that a chain goes on from.

    At the last timestep of Stable Diffusion's schedule alpha is not 0 (abar = .0047): in training even the noisiest latents know the
    picture's brightness, and pure noise shifts it. ``lr`` and ``cond`` start as training does.

    Args:
        start: ``noise``: eps alone; ``lr``: alpha_t lr + sigma_t eps; ``cond``: alpha_t cond + sigma_t eps.
        lr: scaled latents of the enlarged low-quality pictures, (B, C, h, w); they give the shape in every case.
        cond: scaled latents of what the method conditions on, in place of ``lr`` (DiffBIR: the cleaned pictures); None: it has none.
        abar_t: of the first timestep, a scalar.
        noise: asked for ``start``.
    """
    check_start(start)
    eps = noise("start", tuple(lr.shape[1:])).to(lr.device).float()
    if start == "noise":
        return eps
    known = lr if start == "lr" else cond
    if known is None:
        raise UserError("start=cond needs a method that makes a condition latent of its own: use lr or noise")
    return add_noise(known.float(), eps, abar_t)
