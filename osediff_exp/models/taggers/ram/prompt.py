"""Prompts of RAM's and DAPE's tags."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from osediff_exp.errors import UserError, nearest
from osediff_exp.models.backbone import DType
from osediff_exp.models.prompt_cache.fingerprints import digest
from osediff_exp.models.prompts import PromptExtractor, TaggedPrompt
from osediff_exp.models.taggers.base import Tagger
from osediff_exp.models.taggers.cached import CachedTagger
from osediff_exp.models.taggers.ram.files import RAMFiles
from osediff_exp.models.taggers.ram.shape import IMAGE_SIZE
from osediff_exp.models.taggers.ram.tag_list import TagList, check_length, read_tag_list
from osediff_exp.models.taggers.ram.tagger import RAMTagger

Order = Literal["list", "score"]
_VERSION = 1  # of what this code makes of a picture: a change that moves tags counts it up


class RAMPrompt(TaggedPrompt):
    """Prompts of RAM's or DAPE's tags (paper, section 3.2; Table 4, "DAPE").

    As in the released code RAM tags in training, where pictures are clean, and, where ``lora`` is given, DAPE in use.

    Args:
        prompt, prefix, max_tags: see :class:`TaggedPrompt`.
        weights: RAM's ``ram_swin_large_14m.pth``: a path, or a name in one of :func:`osediff_exp.models.places.weight_folders`.
        lora: ``DAPE.pth``; None: RAM itself.
        train_lora: DAPE in training too.
        tag_list, thresholds: ``ram_tag_list.txt`` and ``ram_tag_list_threshold.txt``; found beside ``weights`` too.
        threshold: one probability for all tags; None: each its own.
        order: of the tags in the prompt: ``list``, as in the released code, or ``score``: the surest first.
        dtype: of the network.
        image_size: side of its input in pixels.
        antialias: see :func:`osediff_exp.models.taggers.ram.network.prepare`.
        cache: where tags are kept (see :func:`osediff_exp.models.taggers.cached.cache_folder`).

    Raises:
        UserError: a file is missing or not what it should be, or a value is out of range.
    """

    def __init__(
        self,
        *,
        prompt: str,
        prefix: str = "",
        weights: str,
        lora: str | None = None,
        train_lora: bool = False,
        tag_list: str = "ram_tag_list.txt",
        thresholds: str | None = "ram_tag_list_threshold.txt",
        threshold: float | None = None,
        max_tags: int | None = None,
        order: Order = "list",
        dtype: DType = "float32",
        image_size: int = IMAGE_SIZE,
        antialias: bool = True,
        cache: str | None = None,
    ) -> None:
        if order not in get_args(Order):
            raise UserError(f"prompt.order={order} is unknown: use {' or '.join(get_args(Order))}.{nearest(order, get_args(Order))}")
        files = RAMFiles(weights, lora, dtype=dtype, image_size=image_size)
        names = files.beside(tag_list, "prompt.tag_list")
        own = None if threshold is not None or thresholds is None else files.beside(thresholds, "prompt.thresholds")
        tags = read_tag_list(names, own, threshold=threshold)
        known = partial(_remembered, tags=tags, names=names, antialias=antialias, cache=cache)
        super().__init__(prompt=prompt, tagger=known(files), max_tags=max_tags, prefix=prefix)
        self._place = {name: k for k, name in enumerate(tags.names)} if order == "list" else None
        self._plain: RAMPrompt | None = None
        if lora is not None and not train_lora:
            self._plain = copy.copy(self)
            self._plain.tagger = known(RAMFiles(weights, None, dtype=dtype, image_size=image_size))

    @property
    def in_training(self) -> PromptExtractor:
        return self if self._plain is None else self._plain

    @property
    def cached_taggers(self) -> list[CachedTagger]:
        return super().cached_taggers + ([] if self._plain is None else self._plain.cached_taggers)

    def arranged(self, names: list[str]) -> list[str]:
        return names if self._place is None else sorted(names, key=self._place.__getitem__)


def _remembered(files: RAMFiles, *, tags: TagList, names: Path, antialias: bool, cache: str | None) -> CachedTagger:
    def build() -> Tagger:
        network = files.network()
        check_length(tags, network.shape.num_tags, names=names, weights=files.weights)
        return RAMTagger(network, tags, antialias=antialias)

    listed = digest(*tags.names, *map(repr, tags.thresholds))
    described = {**files.described(), "version": _VERSION, "tags": listed, "antialias": antialias}
    return CachedTagger(build, described=described, asked=len(tags), cache=cache)
