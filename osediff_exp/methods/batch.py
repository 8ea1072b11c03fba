"""What a method sees of a micro-batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from osediff_exp.devices import sent
from osediff_exp.randomness import sample_integers, sample_noise, torch_generator


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """B samples of image size S, and the random numbers of the step.

    Every random number is a pure function of (seed, purpose, step, sample index): resuming, other batch sizes and other ranks give the
    same ones.

    Attributes:
        lq, hq: low-quality pictures, already at output size, and the ground truth, (B, 3, S, S) in [-1, 1].
        prompt_embeds, negative_embeds: text features of each sample's prompt and of the negative prompt, (B, L, D).
        image_embeds: a tagger's features (B, N, E) of the low-quality pictures, where the generator asks for them.
        embed: returns the text features (B, L, D) of other prompts; each text is encoded once a run.
        seed, step, indices: the key of the random numbers; ``indices`` are the B global sample indices.
    """

    lq: Tensor
    hq: Tensor
    prompt_embeds: Tensor
    negative_embeds: Tensor
    embed: Callable[[list[str]], Tensor]
    seed: int
    step: int
    indices: list[int]
    image_embeds: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def noise(self, purpose: str, shape: tuple[int, ...]) -> Tensor:
        """Return standard normal noise (B, *shape), float32, where the pictures are."""
        return sent(sample_noise(self.seed, purpose, self.step, self.indices, shape), self.lq.device)

    def timesteps(self, purpose: str, low: int, high: int) -> Tensor:
        """Return integers (B,), uniform in low .. high - 1, where the pictures are."""
        return sent(sample_integers(self.seed, purpose, self.step, self.indices, low, high), self.lq.device)

    def chance(self, purpose: str, probability: float) -> Tensor:
        """Return booleans (B,), true with this probability: to drop a text, to add a noise."""
        draws = [torch.rand((), generator=torch_generator(self.seed, purpose, self.step, index)) for index in self.indices]
        return sent(torch.stack(draws) < probability, self.lq.device)
