"""RAM and DAPE as a tagger."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from osediff_exp.models.taggers.base import Photo, Tag, Tagger
from osediff_exp.models.taggers.ram.network import RAM, RAMOutput, prepare
from osediff_exp.models.taggers.ram.tag_list import TagList


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
