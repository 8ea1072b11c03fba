"""SeeSR and PASD on the tiny random backbone, and inputs of theirs."""

from __future__ import annotations

from typing import Any

import torch
from method_parts import ADAM
from torch import Tensor

from osediff_exp.methods.base import Parts
from osediff_exp.methods.pasd.generator import PASDGenerator
from osediff_exp.methods.pasd.method import PASD
from osediff_exp.methods.seesr.generator import SeeSRGenerator
from osediff_exp.methods.seesr.method import SeeSR
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Context, GeneratorOutput, Noise
from osediff_exp.models.prompts import PromptExtractor
from osediff_exp.randomness import picture_noise

TOKENS = (5, 6)


class Seen(PromptExtractor):
    """The same words for every picture, and image tokens that are a function of its pixels."""

    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        return ["sharp photo"] * len(images)

    def image_embeds(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.mean(dim=1, keepdim=True), TOKENS)[:, 0]


def make_seesr(backbone: Backbone, *, training: dict[str, Any] | None = None, **settings: Any) -> SeeSR:
    torch.manual_seed(1)
    generator = SeeSRGenerator(**{"backbone": backbone, "image_embeds_shape": TOKENS, "steps": 2, "guidance": 2.0} | settings)
    return SeeSR(Parts(backbone=backbone, generator=generator), optimizer=ADAM, **training or {})


def make_pasd(backbone: Backbone, *, training: dict[str, Any] | None = None, **settings: Any) -> PASD:
    torch.manual_seed(1)
    generator = PASDGenerator(**{"backbone": backbone, "steps": 2, "guidance": 2.0} | settings)
    return PASD(Parts(backbone=backbone, generator=generator), optimizer=ADAM, **training or {})


def noise_of(names: list[str], *, seed: int = 0) -> Noise:
    return lambda purpose, shape: picture_noise(seed, purpose, names, shape)


def context_of(backbone: Backbone, lq: Tensor) -> Context:
    return Context(negative_embeds=backbone.encode_prompts(["blurry drawing"] * len(lq)), image_embeds=Seen().image_embeds((lq + 1) / 2))


@torch.no_grad()
def restore(backbone: Backbone, generator: SeeSRGenerator | PASDGenerator, lq: Tensor, names: list[str]) -> GeneratorOutput:
    embeds = backbone.encode_prompts(["sharp photo"] * len(lq))
    return generator(lq, embeds, noise_of(names), context_of(backbone, lq))
