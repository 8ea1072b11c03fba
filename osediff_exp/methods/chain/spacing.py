"""Which of the schedule's timesteps a short chain visits."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from osediff_exp.errors import UserError, nearest

Spacing = Literal["ends", "leading", "trailing"]


def spaced_timesteps(*, start: int, steps: int, spacing: Spacing = "ends") -> list[int]:
    """Return ``steps`` timesteps from high to low out of 0..start.

    Args:
        start: the timestep that the chain starts at, 999 for the whole of a chain of 1000.
        steps: how many; at most ``start + 1``.
        spacing: ``ends`` has both 0 and ``start`` among them (guided-diffusion's respacing, as StableSR and DiffBIR use it; their
            single step would be at t = 0, which changes next to nothing: here it is at ``start``). ``leading`` has the first of each of
            equal parts, moved up by 1 (Stable Diffusion's steps_offset: 981, 961, .. 1 for 50). ``trailing`` has the last of each
            (999, 979, .. 19).

    Raises:
        UserError: ``steps`` does not fit, or ``spacing`` is unknown.
    """
    if not 1 <= steps <= start + 1:
        raise UserError(f"steps={steps} does not fit a chain that starts at timestep {start}: use 1 to {start + 1}")
    if spacing == "ends":
        return [start] if steps == 1 else torch.linspace(start, 0, steps, dtype=torch.float64, device="cpu").round().long().tolist()
    if spacing == "leading":
        stride = (start + 1) // steps
        return [min(k * stride + 1, start) for k in reversed(range(steps))]
    if spacing == "trailing":
        return [round((start + 1) * (k + 1) / steps) - 1 for k in reversed(range(steps))]
    raise UserError(f"spacing={spacing} is unknown: use {', '.join(get_args(Spacing))}.{nearest(spacing, get_args(Spacing))}")
