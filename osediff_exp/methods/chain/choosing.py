"""Samplers by name: a checkpoint's configuration holds plain values."""

from __future__ import annotations

from typing import Literal, get_args

from osediff_exp.errors import UserError, nearest
from osediff_exp.methods.chain.ddpm import DDIMSampler, DDPMSampler
from osediff_exp.methods.chain.sampler import Sampler
from osediff_exp.methods.chain.unipc import UniPCSampler
from osediff_exp.models.noise_schedule import NoiseSchedule

SamplerName = Literal["ddpm", "ddim", "unipc"]


def most_steps(name: SamplerName, schedule: NoiseSchedule) -> int:
    """Return how many steps a chain over the whole ``schedule`` takes at most: UniPC leaves the last timestep (0) out."""
    return schedule.num_steps - 1 if name == "unipc" else schedule.num_steps


def sampler_named(name: SamplerName) -> Sampler:
    """Return respaced ancestral sampling (``ddpm``), DDIM without noise (``ddim``), or UniPC (``unipc``); UserError for another name."""
    if name == "ddpm":
        return DDPMSampler()
    if name == "ddim":
        return DDIMSampler()
    if name == "unipc":
        return UniPCSampler()
    raise UserError(f"sampler={name} is unknown: use {', '.join(get_args(SamplerName))}.{nearest(name, get_args(SamplerName))}")
