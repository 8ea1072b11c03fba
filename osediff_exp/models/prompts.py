"""What the generator is told about a photo: prompts, and where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models.taggers.base import Tagger


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


class TaggedPrompt(PromptExtractor):
    """Tags of each image, then the fixed prompt: "TAG, TAG, clean, sharp, ..." as in the released code.

    Tags come first, the surest first of all: a text encoder cuts long prompts at their end. An image without a sure tag gets the fixed
    prompt alone.

    Args:
        prompt: the words behind the tags, the same for every image.
        tagger: names what is in an image.
        max_tags: most tags of an image, at least 1.
        threshold: tags that score less, in [0, 1], are left out.

    Raises:
        UserError: if ``max_tags`` or ``threshold`` is out of range.
    """

    def __init__(self, *, prompt: str, tagger: Tagger, max_tags: int, threshold: float) -> None:
        if max_tags < 1:
            raise UserError(f"prompt.extractor.max_tags={max_tags}: give at least 1, or choose prompt=fixed for no tags")
        if not 0.0 <= threshold <= 1.0:
            raise UserError(f"prompt.extractor.threshold={threshold}: give a tag's least score, from 0 to 1")
        self.prompt, self.tagger, self.max_tags, self.threshold = prompt, tagger, max_tags, threshold

    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        tagged = self.tagger(images, self.max_tags)
        sure = [[tag.name for tag in tags if tag.score >= self.threshold] for tags in tagged]
        return [", ".join(filter(None, [*tags, self.prompt])) for tags in sure]
