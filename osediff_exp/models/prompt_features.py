"""Text features of prompts, each encoded once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

MOST_PROMPTS = 256
"""Features kept: the constant prompts of a run are a handful; tags of photos would fill the memory."""


class PromptFeatures:
    """Remembers the features of prompts on the CPU.

    Args:
        encode: returns the features (B, L, D) of B prompts.
    """

    def __init__(self, encode: Callable[[list[str]], Tensor]) -> None:
        self.encode = encode
        self.known: dict[str, Tensor] = {}

    def __call__(self, prompts: list[str]) -> Tensor:
        """Return the features (B, L, D) of B prompts."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.known]
        if missing and len(self.known) + len(missing) > MOST_PROMPTS:
            self.known.clear()
            missing = list(dict.fromkeys(prompts))
        if missing:
            self.known.update(zip(missing, self.encode(missing).cpu(), strict=True))
        return torch.stack([self.known[prompt] for prompt in prompts])
