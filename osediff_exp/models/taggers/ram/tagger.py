"""RAM and DAPE as a tagger, and the prompts made of their tags."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from osediff_exp.errors import UserError, nearest
from osediff_exp.models.places import find_file
from osediff_exp.models.prompt_cache.fingerprints import digest, weights_key
from osediff_exp.models.prompts import PromptExtractor, TaggedPrompt
from osediff_exp.models.taggers.base import Photo, Tag, Tagger
from osediff_exp.models.taggers.cached import CachedTagger
from osediff_exp.models.taggers.ram.layout import build_ram, read_tensors
from osediff_exp.models.taggers.ram.network import RAM, RAMOutput, prepare
from osediff_exp.models.taggers.ram.shape import IMAGE_SIZE
from osediff_exp.models.taggers.ram.tag_list import TagList, check_length, read_tag_list

DType = Literal["float32", "bfloat16", "float16"]
Order = Literal["list", "score"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_VERSION = 1  # of what this code makes of a picture: a change that moves tags counts it up


class RAMTagger(Tagger):
    """Tags whose probability exceeds their own threshold, the surest first. No part of the training module; frozen.

    Args:
        network: with LoRA merged: DAPE.
        tags: names and thresholds.
        antialias: see :func:`osediff_exp.models.taggers.ram.network.prepare`.
    """

    def __init__(self, network: RAM, tags: TagList, *, antialias: bool = True) -> None:
        self.network, self.tags, self.antialias = network, tags, antialias
        self._thresholds = torch.tensor(tags.thresholds)

    def __call__(self, images: Tensor, max_tags: int) -> list[list[Tag]]:
        return self._tags(self.prepare(images), max_tags)

    def of_photos(self, photos: Sequence[Photo], max_tags: int, *, like: Tensor) -> list[list[Tag]]:
        return self._tags(torch.cat([self.prepare(photo.load()[None].to(like.device)) for photo in photos]), max_tags)

    def prepare(self, images: Tensor) -> Tensor:
        """Return the network's input of images (B, 3, H, W) in [0, 1]."""
        return prepare(images, size=self.network.shape.image_size, antialias=self.antialias)

    def look(self, prepared: Tensor) -> RAMOutput:
        """Return logits and image embeddings of prepared pictures (B, 3, S, S), in the network's own precision, where the pictures are."""
        self.network.to(prepared.device)
        with torch.inference_mode(), torch.autocast(prepared.device.type, enabled=False):
            return self.network(prepared)

    def image_embeds(self, images: Tensor) -> Tensor:
        """Return the image tokens (B, 145, 512) of images (B, 3, H, W) in [0, 1], without asking for tags: what SeeSR attends to."""
        self.network.to(images.device)
        with torch.inference_mode(), torch.autocast(images.device.type, enabled=False):
            return self.network.image_embeds(self.prepare(images))

    def _tags(self, prepared: Tensor, max_tags: int) -> list[list[Tag]]:
        return self.tags_of(self.look(prepared).logits, max_tags)

    def tags_of(self, logits: Tensor, max_tags: int) -> list[list[Tag]]:
        """Return the tags that logits (B, tags) stand for."""
        return [self._above(row)[:max_tags] for row in logits.float().sigmoid().cpu()]

    def _above(self, probabilities: Tensor) -> list[Tag]:
        on = (probabilities > self._thresholds).nonzero().flatten().tolist()
        found = [Tag(self.tags.names[k], float(probabilities[k])) for k in on]
        return sorted(found, key=lambda tag: -tag.score)


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
        _check_choices(dtype, order)
        files = RAMFiles(weights, lora, dtype=dtype, image_size=image_size)
        names = files.beside(tag_list, "prompt.tag_list")
        own = None if threshold is not None or thresholds is None else files.beside(thresholds, "prompt.thresholds")
        tags = read_tag_list(names, own, threshold=threshold)

        def build() -> Tagger:
            network = files.network()
            check_length(tags, network.shape.num_tags, names=names, weights=files.weights)
            return RAMTagger(network, tags, antialias=antialias)

        described = {
            **files.described(),
            "version": _VERSION,
            "tags": digest(*tags.names, *map(repr, tags.thresholds)),
            "antialias": antialias,
        }
        tagger = CachedTagger(build, described=described, asked=len(tags), cache=cache)
        super().__init__(prompt=prompt, tagger=tagger, max_tags=max_tags, prefix=prefix)
        self._place = {name: k for k, name in enumerate(tags.names)} if order == "list" else None
        others: dict[str, Any] = {
            "prefix": prefix,
            "weights": weights,
            "tag_list": tag_list,
            "thresholds": thresholds,
            "threshold": threshold,
        }
        others |= {"max_tags": max_tags, "order": order, "dtype": dtype, "image_size": image_size, "antialias": antialias, "cache": cache}
        self._plain = None if lora is None or train_lora else RAMPrompt(prompt=prompt, **others)

    @property
    def in_training(self) -> PromptExtractor:
        return self if self._plain is None else self._plain

    @property
    def cached_taggers(self) -> list[CachedTagger]:
        return super().cached_taggers + ([] if self._plain is None else self._plain.cached_taggers)

    def arranged(self, names: list[str]) -> list[str]:
        return names if self._place is None else sorted(names, key=self._place.__getitem__)


class RAMFiles:
    """Weights on disk, found but not read before they are needed.

    Raises:
        UserError: a file is nowhere.
    """

    def __init__(self, weights: str, lora: str | None, *, dtype: DType = "float32", image_size: int = IMAGE_SIZE) -> None:
        self.weights = find_file(weights, "prompt.weights")
        self.lora = None if lora is None else find_file(lora, "prompt.lora")
        self.dtype, self.image_size = dtype, image_size

    def beside(self, name: str, key: str) -> Path:
        """Return a file of the user's that may lie beside the weights."""
        neighbour = self.weights.parent / Path(name).name
        return neighbour if not Path(name).expanduser().is_file() and neighbour.is_file() else find_file(name, key)

    def network(self) -> RAM:
        """Read the weights and return the network, with LoRA merged."""
        lora = {} if self.lora is None else {"lora": read_tensors(self.lora), "lora_origin": str(self.lora)}
        return build_ram(
            read_tensors(self.weights),
            image_size=self.image_size,
            dtype=_DTYPES[self.dtype],
            origin=str(self.weights),
            **lora,  # type: ignore[arg-type]
        )

    def described(self) -> dict[str, str | int | None]:
        """Return what decides the network's answers, as plain data."""
        return {
            "tagger": "RAM" if self.lora is None else f"RAM with {self.lora.name}",
            "weights": weights_key(self.weights),
            "lora": None if self.lora is None else weights_key(self.lora),
            "dtype": self.dtype,
            "image_size": self.image_size,
        }


def _check_choices(dtype: str, order: str) -> None:
    for key, value, choices in (("dtype", dtype, tuple(_DTYPES)), ("order", order, ("list", "score"))):
        if value not in choices:
            raise UserError(f"prompt.{key}={value} is unknown: use {', '.join(choices)}.{nearest(value, choices)}")
