"""A tagger that remembers, and is built when it meets a picture that nobody has tagged."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from osediff_exp.models.places import cache_root
from osediff_exp.models.prompt_cache.fingerprints import digest_of, picture_keys
from osediff_exp.models.prompt_cache.tag_store import Entry, TagStore, others_described
from osediff_exp.models.taggers.base import Photo, Tag, Tagger

log = logging.getLogger(__name__)

AUTO = "auto"
SECONDS_BETWEEN_LOOKS = 1.0
"""How often the folder is looked through for what other processes have tagged: on a network that takes time."""


def cache_folder(cache: str | None) -> Path | None:
    """Return the folder that ``prompt.cache`` names: ``auto`` is the user's cache folder; None: nothing is kept on disk."""
    if cache is None:
        return None
    return cache_root() / "prompts" if cache == AUTO else Path(cache).expanduser()


class CachedTagger(Tagger):
    """Answers from a store of tags; asks ``build()``'s tagger about the pictures that are not in it, all of a call together.

    Args:
        build: makes the tagger, at the first unknown picture: a run whose pictures are all known loads no network.
        described: everything that decides what the tagger answers, weights by their fingerprints, as plain data; ``tagger`` is its name
            for humans. Two descriptions that differ share no tags.
        asked: how many tags it is asked for: more than any prompt takes, so that another ``max_tags`` finds them.
        cache: see :func:`cache_folder`.

    Attributes:
        hits, misses: pictures that were known, and pictures that were tagged now.
        seconds: what tagging the pictures met so far took when it was done, now or in an earlier run.
    """

    def __init__(self, build: Callable[[], Tagger], *, described: Mapping[str, Any], asked: int, cache: str | None) -> None:
        self._build, self.described, self.asked = build, {**described, "asked": asked}, asked
        self.root, self.fingerprint = cache_folder(cache), digest_of(self.described)
        self.hits = self.misses = 0
        self.seconds = 0.0
        self._looked = float("-inf")

    @cached_property
    def tagger(self) -> Tagger:
        """The tagger itself, not asked through the cache."""
        return self._build()

    @cached_property
    def store(self) -> TagStore:
        """The tags known; read from disk at the first question."""
        return TagStore(self.root, tagger=self.fingerprint, described=self.described)

    def __call__(self, images: Tensor, max_tags: int) -> list[list[Tag]]:
        return self._answers(picture_keys(images), lambda missing: self.tagger(images[missing], self.asked), max_tags)

    def of_photos(self, photos: Sequence[Photo], max_tags: int, *, like: Tensor) -> list[list[Tag]]:
        keys = [photo.key for photo in photos]
        ask = lambda missing: self.tagger.of_photos([photos[k] for k in missing], self.asked, like=like)  # noqa: E731
        return self._answers(keys, ask, max_tags)

    def image_embeds(self, images: Tensor) -> Tensor:
        """Return the tagger's own features: they are too large to be kept."""
        return self.tagger.image_embeds(images)

    def _answers(self, keys: list[str], ask: Callable[[list[int]], list[list[Tag]]], max_tags: int) -> list[list[Tag]]:
        known = self._known(keys)
        if len(known) < len(set(keys)) and time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            self.store.refresh()  # another process may have been here
            self._looked = time.monotonic()
            known |= self._known([key for key in keys if key not in known])
        first = {key: k for k, key in reversed(list(enumerate(keys)))}
        missing = sorted(k for key, k in first.items() if key not in known)  # each picture once
        if missing:
            known |= self._learn([keys[k] for k in missing], lambda: ask(missing))
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        self.seconds += sum(known[key].seconds for key in keys)
        return [list(known[key].tags[:max_tags]) for key in keys]

    def _known(self, keys: Sequence[str]) -> dict[str, Entry]:
        return {key: entry for key in dict.fromkeys(keys) if (entry := self.store.get(key)) is not None}

    def _learn(self, keys: list[str], ask: Callable[[], list[list[Tag]]]) -> dict[str, Entry]:
        if self.misses == 0 and len(self.store) == 0:
            self._tell_of_others()
        tagger = self.tagger  # built before the clock starts
        started = time.perf_counter()
        found = ask()
        seconds = (time.perf_counter() - started) / len(keys)
        del tagger
        entries = {key: Entry(tuple(tags), seconds) for key, tags in zip(keys, found, strict=True)}
        self.store.add(entries)
        return entries

    def _tell_of_others(self) -> None:
        others = others_described(self.root, self.fingerprint) if self.root is not None else []
        if others:
            log.warning(
                "the tags in %s are by other taggers or settings (%s), not used: pictures are tagged as they come (or before, by task=tag)",
                self.root,
                ", ".join(others),
            )
