"""Calling a generator with what it asks for, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from osediff_exp.devices import sent
from osediff_exp.models.generator_base import Context, Generator, GeneratorOutput
from osediff_exp.randomness import picture_noise


def restore_pictures(
    generator: Generator,
    lq: Tensor,
    prompt_embeds: Tensor,
    *,
    names: list[str],
    seed: int,
    negative_embeds: Callable[[], Tensor],
    image_embeds: Tensor | None,
) -> GeneratorOutput:
    """Restore pictures; a picture's noise is a pure function of (seed, its name), whatever batch it is in.

    Args:
        generator: any.
        lq: (B, 3, H, W) in [-1, 1], at output size.
        prompt_embeds: (B, L, D).
        names: of the B pictures.
        negative_embeds: returns that part of the :class:`Context`; called only where the generator asks for it.
        image_embeds: (B, N, E) where the generator asks for them, else None.
    """
    asked: dict[str, Any] = {}
    if generator.draws_noise:
        asked["noise"] = lambda purpose, shape: sent(picture_noise(seed, purpose, names, shape), prompt_embeds.device)
    if generator.wants_negative or generator.wants_image_embeds:
        asked["context"] = Context(
            negative_embeds=negative_embeds() if generator.wants_negative else None,
            image_embeds=image_embeds,
        )
    return generator(lq, prompt_embeds, **asked)
