"""Text features of prompts, each encoded once: by this process, and, with a store, by any before it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor

from osediff_exp.models.prompt_cache.feature_store import FeatureStore

MOST_PROMPTS = 256
"""Features kept in memory: the constant prompts of a run are a handful, and used at every step; tags of photos would fill the memory."""


class PromptFeatures:
    """Remembers the features of prompts on the CPU; those longest unused go first, so that a constant prompt is encoded once per run.

    Args:
        encode: returns the features (B, L, D) of B prompts.
        open_store: returns where features of earlier runs are, called at the first prompt; None: nowhere.

    Attributes:
        hits, misses: prompts that were remembered (by this process or on disk), and prompts that had to be encoded.
    """

    def __init__(self, encode: Callable[[list[str]], Tensor], open_store: Callable[[], FeatureStore] | None = None) -> None:
        self.encode, self._open_store = encode, open_store
        self.known: OrderedDict[str, Tensor] = OrderedDict()
        self.hits = self.misses = 0
        self._store: FeatureStore | None = None

    def __call__(self, prompts: list[str]) -> Tensor:
        """Return the features (B, L, D) of B prompts."""
        distinct = list(dict.fromkeys(prompts))
        found = {prompt: features for prompt in distinct if (features := self._remembered(prompt)) is not None}
        missing = [prompt for prompt in distinct if prompt not in found]
        if missing:
            found |= self._encoded(missing)
        self.hits += len(distinct) - len(missing)
        self.misses += len(missing)
        self._keep(found)
        return torch.stack([found[prompt] for prompt in prompts])

    def _remembered(self, prompt: str) -> Tensor | None:
        if prompt in self.known:
            return self.known[prompt]
        if self._store is None and self._open_store is not None:
            self._store = self._open_store()
        return None if self._store is None else self._store.get(prompt)

    def _encoded(self, prompts: list[str]) -> dict[str, Tensor]:
        encoded = dict(zip(prompts, self.encode(prompts).cpu(), strict=True))
        if self._store is not None:
            for prompt, features in encoded.items():
                self._store.add(prompt, features)
        return encoded

    def _keep(self, found: dict[str, Tensor]) -> None:
        for prompt, features in found.items():
            self.known[prompt] = features
            self.known.move_to_end(prompt)
        while len(self.known) > MOST_PROMPTS:
            self.known.popitem(last=False)
