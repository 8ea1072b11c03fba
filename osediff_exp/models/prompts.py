"""What the generator is told about a photo: prompts, and where they come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from osediff_exp.errors import UserError, nearest
from osediff_exp.models.taggers.base import Photo, Tag, Tagger
from osediff_exp.models.taggers.cached import CachedTagger

Words = Literal["own", "other", "fixed", "none"]
WORDS: tuple[Words, ...] = ("own", "other", "fixed", "none")


def split_prompt(prompt: str) -> list[str]:
    """Return the comma-separated terms of a prompt."""
    return [term.strip() for term in prompt.split(",") if term.strip()]


class PromptExtractor(ABC):
    """c_y = Y(x): one prompt per image. In training it sees the ground truth, in use the low-quality image (paper, section 3.2)."""

    @abstractmethod
    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        """Return B prompts for images (B, 3, H, W) in [0, 1] called ``names``."""

    def of_crops(self, images: Tensor, names: list[str], paths: list[str]) -> list[str]:
        """Return the prompts of pictures (B, 3, H, W) that were cut from the files ``paths``, of which two may have one name."""
        return self(images, names)

    def of_photos(self, photos: Sequence[Photo], *, like: Tensor) -> list[str]:
        """Return the prompts of whole photos, whatever their sizes; a network runs where ``like`` is."""
        return [self(photo.load()[None].to(like.device), [photo.name])[0] for photo in photos]

    def image_embeds(self, images: Tensor) -> Tensor:
        """Return features (B, N, E) of images (B, 3, H, W) in [0, 1], which a network may attend to beside the text, where the images are.

        Raises:
            UserError: this source has none.
        """
        raise UserError("this method needs image features, which this prompt does not give: choose prompt=tagged or prompt=ram")

    @property
    def in_training(self) -> PromptExtractor:
        """The extractor that a training asks; most sources have one for everything."""
        return self

    def expect(self, names: Sequence[str], paths: Sequence[Path]) -> None:  # noqa: B027 - most sources know every picture
        """Raise UserError where the pictures ``names``, of the files ``paths``, could not be told about; asked before a training."""

    def figures(self) -> dict[str, float]:
        """Return what finding prompts took so far: flat figures for result.json; empty where it took nothing."""
        return {}


class FixedPrompt(PromptExtractor):
    """The same prompt for every image; an empty one is the paper's null prompt (Table 4).

    Args:
        prompt: the words.
        source: makes the extractor whose words these stand in for, when a method asks for its image features; None: there is none.
    """

    def __init__(self, *, prompt: str, source: Callable[[], PromptExtractor] | None = None) -> None:
        self.prompt, self._source = prompt, source

    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        return [self.prompt] * len(images)

    def image_embeds(self, images: Tensor) -> Tensor:
        return super().image_embeds(images) if self._stood_in_for is None else self._stood_in_for.image_embeds(images)

    @cached_property
    def _stood_in_for(self) -> PromptExtractor | None:
        return None if self._source is None else self._source()


def with_words(words: str, *, positive: str, build: Callable[[], PromptExtractor]) -> PromptExtractor:
    """Return the extractor of ``prompt.words``: ``build()``'s for ``own`` and ``other`` (what it says of the picture, or of another one:
    then the data hand it that other picture), the fixed prompt ``positive``, or the null prompt.

    Image features are ``build()``'s in any case.

    Raises:
        UserError: there is no such word.
    """
    if words not in WORDS:
        raise UserError(f"prompt.words={words} is unknown: use {', '.join(WORDS)}.{nearest(words, WORDS)}")
    if words in ("own", "other"):
        return build()
    return FixedPrompt(prompt=positive if words == "fixed" else "", source=build)


class TaggedPrompt(PromptExtractor):
    """Tags of each image between a prefix and a suffix: "TAG, TAG, clean, sharp, ..." as in the released code.

    Tags come before the suffix, the surest first of all: a text encoder cuts long prompts at their end. An image without a sure tag gets
    the other words alone.

    Args:
        prompt: the suffix, the same for every image.
        tagger: names what is in an image.
        max_tags: most tags of an image, at least 1; None: all.
        threshold: tags that score less, in [0, 1], are left out; None: none is.
        prefix: words before the tags.

    Raises:
        UserError: if ``max_tags`` or ``threshold`` is out of range.
    """

    def __init__(self, *, prompt: str, tagger: Tagger, max_tags: int | None, threshold: float | None = None, prefix: str = "") -> None:
        if max_tags is not None and max_tags < 1:
            raise UserError(f"prompt.extractor.max_tags={max_tags}: give at least 1, or choose prompt=fixed for no tags")
        if threshold is not None and not 0.0 <= threshold <= 1.0:
            raise UserError(f"prompt.extractor.threshold={threshold}: give a tag's least score, from 0 to 1")
        self.prompt, self.tagger, self.max_tags, self.prefix = prompt, tagger, max_tags, prefix
        self.threshold = 0.0 if threshold is None else threshold

    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        return [self._prompt(words) for words in self.words_of(images)]

    def of_photos(self, photos: Sequence[Photo], *, like: Tensor) -> list[str]:
        return [self._prompt(words) for words in self.words_of_photos(photos, like=like)]

    def words_of(self, images: Tensor) -> list[list[str]]:
        """Return the tags of images (B, 3, H, W) in [0, 1] that stand in their prompts."""
        return [self._sure(tags) for tags in self.tagger(images, self._most)]

    def words_of_photos(self, photos: Sequence[Photo], *, like: Tensor) -> list[list[str]]:
        """Return the tags of whole photos that stand in their prompts."""
        return [self._sure(tags) for tags in self.tagger.of_photos(photos, self._most, like=like)]

    def image_embeds(self, images: Tensor) -> Tensor:
        return self.tagger.image_embeds(images).clone()  # a tagger's may be made in inference mode, and are to meet gradients

    def figures(self) -> dict[str, float]:
        if not (taggers := self.cached_taggers):
            return {}
        hits, misses = sum(tagger.hits for tagger in taggers), sum(tagger.misses for tagger in taggers)
        cost = {"prompt_seconds_per_image": sum(tagger.seconds for tagger in taggers) / (hits + misses)} if hits + misses else {}
        return {"tag_cache_hits": hits, "tag_cache_misses": misses, **cost}

    @property
    def cached_taggers(self) -> list[CachedTagger]:
        """The taggers whose answers are remembered."""
        return [self.tagger] if isinstance(self.tagger, CachedTagger) else []

    @property
    def _most(self) -> int:
        return self.max_tags if self.max_tags is not None else torch.iinfo(torch.int32).max

    def _prompt(self, words: list[str]) -> str:
        return ", ".join(filter(None, [self.prefix, *words, self.prompt]))

    def _sure(self, tags: list[Tag]) -> list[str]:
        return self.arranged([tag.name for tag in tags if tag.score >= self.threshold])

    def arranged(self, names: list[str]) -> list[str]:
        """Return the tags in the prompt's order; they come the surest first."""
        return names
