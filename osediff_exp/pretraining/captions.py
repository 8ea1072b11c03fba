"""Captions that teach the small prior what the prompts of restoration mean.

A sharp crop is captioned with positive words and content words (from the photo's file name), a degraded crop with words of the negative
prompt; some captions are dropped. Classifier-free guidance between the prompt and the negative prompt then points from degraded to
sharp, as it does in Stable Diffusion.
"""

from __future__ import annotations

import re

import numpy as np

from osediff_exp.models.prompts import split_prompt

_MIN_WORD = 3


def content_words(name: str) -> list[str]:
    """Return the words of a file name that may describe a photo: 'castle-maintenon_0' gives ['castle', 'maintenon']."""
    pieces = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return list(dict.fromkeys(piece.lower() for piece in pieces if len(piece) >= _MIN_WORD))


def _some(rng: np.random.Generator, words: list[str], *, at_least: int) -> list[str]:
    count = int(rng.integers(min(at_least, len(words)), len(words) + 1))
    return [words[k] for k in rng.permutation(len(words))[:count]]


def caption(
    rng: np.random.Generator, *, name: str, degraded: bool, positive_prompt: str, negative_prompt: str, drop_probability: float
) -> str:
    """Return a training caption: half of them the whole prompt, so that exactly it is well known, half some of its words."""
    if rng.random() < drop_probability:
        return ""
    prompt = negative_prompt if degraded else positive_prompt
    words = split_prompt(prompt)
    if rng.random() < 0.5:
        words = _some(rng, words, at_least=3)
    content = content_words(name) if rng.random() < 0.5 else []
    return ", ".join(words + content if degraded else content + words)
