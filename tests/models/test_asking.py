"""A generator is given what it asks for, and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from osediff_exp.models.asking import restore_pictures
from osediff_exp.models.generator_base import Generator, GeneratorOutput
from osediff_exp.randomness import picture_noise

LQ, TEXT = torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 7)


class Asking(Generator):
    """Keeps what it is called with."""

    def forward(self, lq: Tensor, prompt_embeds: Tensor, *others: Any, **asked: Any) -> GeneratorOutput:
        self.asked = asked
        return GeneratorOutput(image=lq, latent=lq)


def asked_by(generator: Asking, *, names: tuple[str, ...] = ("a", "b")) -> dict[str, Any]:
    restore_pictures(generator, LQ, TEXT, names=list(names), seed=3, negative_embeds=lambda: TEXT + 1, image_embeds=None)
    return generator.asked


def test_one_that_asks_for_nothing_gets_nothing() -> None:
    """OSEDiff without noise takes the posterior's mode: noise would change its pictures."""
    assert asked_by(Asking()) == {}


def test_a_sampler_gets_noise_that_is_a_function_of_seed_name_and_purpose() -> None:
    generator = Asking()
    generator.draws_noise = True
    noise = asked_by(generator)["noise"]
    drawn = noise("start", (4, 2, 3))
    assert drawn.shape == (2, 4, 2, 3)
    assert torch.equal(asked_by(generator, names=("b",))["noise"]("start", (4, 2, 3))[0], drawn[1])
    assert torch.equal(picture_noise(3, "start", ["a"], (4, 2, 3))[0], drawn[0])
    for other in (noise("step/1", (4, 2, 3))[0], picture_noise(4, "start", ["a"], (4, 2, 3))[0], drawn[1]):
        assert (other - drawn[0]).abs().max() > 0.1


def test_the_context_has_the_parts_that_are_asked_for() -> None:
    generator = Asking()
    generator.wants_negative = True
    context = asked_by(generator)["context"]
    assert torch.equal(context.negative_embeds, TEXT + 1)
    assert context.image_embeds is None
