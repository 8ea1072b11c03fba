"""RAM's tagging network: a Swin transformer, a projection, and a head that asks for every tag."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from osediff_exp.errors import UserError
from osediff_exp.models.taggers.ram.head import TaggingHead
from osediff_exp.models.taggers.ram.shape import RAMShape

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class RAMOutput(NamedTuple):
    """``logits`` (B, tags) before the sigmoid; ``image_embeds`` (B, L, 512), of which token 0 is the mean of the others before projection.

    SeeSR's image attention takes its keys and values from ``image_embeds`` (145 tokens at 384 px).
    """

    logits: Tensor
    image_embeds: Tensor


class RAM(nn.Module):
    """Pictures (B, 3, S, S), normalised, to :class:`RAMOutput`. Parameter names are those of the released weights but for timm's own
    (see :mod:`osediff_exp.models.taggers.ram.layout`); whatever type the input has, the network computes in that of its weights.
    """

    def __init__(self, shape: RAMShape) -> None:
        super().__init__()
        self.shape = shape
        self.visual_encoder = _swin(shape)
        width = shape.embed_dim * 2 ** (len(shape.depths) - 1)
        self.image_proj = nn.Linear(width, shape.embed_width)
        self.label_embed = nn.Parameter(torch.zeros(shape.num_tags, shape.embed_width))
        self.wordvec_proj = nn.Linear(shape.embed_width, shape.head_width)
        self.tagging_head = TaggingHead(
            shape.head_width,
            shape.embed_width,
            num_layers=shape.head_layers,
            num_heads=shape.head_heads,
            inner=shape.head_inner,
        )
        self.fc = nn.Linear(shape.head_width, 1)

    def image_embeds(self, x: Tensor) -> Tensor:
        """Return the image tokens (B, L, 512) of normalised pictures (B, 3, S, S)."""
        features = self.visual_encoder.forward_features(x.to(self.label_embed.dtype))  # type: ignore[operator]
        tokens = features.flatten(1, 2)
        return self.image_proj(torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1))

    def forward(self, x: Tensor) -> RAMOutput:
        embeds = self.image_embeds(x)
        labels = F.relu(self.wordvec_proj(self.label_embed)).expand(len(x), -1, -1)
        return RAMOutput(self.fc(self.tagging_head(labels, embeds)).squeeze(-1), embeds)


def _swin(shape: RAMShape) -> nn.Module:
    try:
        from timm.models.swin_transformer import SwinTransformer
    except ImportError as error:
        raise UserError("RAM is built of timm's Swin transformer, which is missing: pip install osediff-exp[ram]") from error
    return SwinTransformer(
        img_size=shape.image_size,
        window_size=shape.window,
        embed_dim=shape.embed_dim,
        depths=shape.depths,
        num_heads=shape.num_heads,
        num_classes=0,
        global_pool="",
        drop_path_rate=0.0,
        weight_init="skip",
    )


def prepare(images: Tensor, *, size: int, antialias: bool = True) -> Tensor:
    """Return RAM's input (B, 3, size, size) from images (B, 3, H, W) in [0, 1]: resized without regard to proportions, then normalised.

    Bilinear, as RAM's, SeeSR's and OSEDiff's code does. RAM's own resizes 8-bit pictures with Pillow, which smooths where it reduces;
    OSEDiff's resizes tensors, which smooths or not with the version of torchvision: hence ``antialias``.
    """
    return normalise(resize(images.float(), size=size, antialias=antialias))


def resize(images: Tensor, *, size: int, antialias: bool = True) -> Tensor:
    """Return (B, 3, size, size), bilinear; pictures of that size stay as they are."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=antialias, align_corners=False)


def normalise(images: Tensor) -> Tensor:
    """Bring images (B, 3, H, W) in [0, 1] to ImageNet's mean and deviation."""
    mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (_MEAN, _STD))
    return (images - mean) / std
