"""What the generator is told about a photo: prompts, and where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor


def split_prompt(prompt: str) -> list[str]:
    """Return the comma-separated terms of a prompt."""
    return [term.strip() for term in prompt.split(",") if term.strip()]


class PromptExtractor(ABC):
    """c_y = Y(x): one prompt per image. In training it sees the ground truth, in use the low-quality image (paper, section 3.2)."""

    @abstractmethod
    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        """Return B prompts for images (B, 3, H, W) in [0, 1] called ``names``."""


class FixedPrompt(PromptExtractor):
    """The same prompt for every image; an empty one is the paper's null prompt (Table 4)."""

    def __init__(self, *, prompt: str) -> None:
        self.prompt = prompt

    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        return [self.prompt] * len(images)
