"""A photo as the restorer takes it apart: 8-bit colours for the networks, and beside them what must come out again as it went in.

Transparency, grey and 16 bits per channel survive; a palette, CMYK and every other colour space become RGB, and the camera's EXIF rotation
is applied. The colour profile (ICC) travels along where the picture stays in its colour space; pixels are never converted by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from osediff_exp.data.images import ORIENTATION, ByteImage, enlarge_bicubic, to_array

Depth = Literal[8, 16]
_LUMA = (0.299, 0.587, 0.114)  # BT.601, as Pillow's grey
_KEEPS_PROFILE = ("1", "L", "LA", "I;16", "I", "P", "RGB", "RGBA")
_STRIP_PIXELS = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A photo of ``depth`` bits, taken apart.

    Attributes:
        pixels: (H, W, 3) RGB or (H, W) grey, uint8 or uint16 by ``depth``; not multiplied by alpha.
        alpha: (H, W) of the same type, or None.
        profile: the ICC profile's bytes, or None.
    """

    pixels: NDArray[Any]
    alpha: NDArray[Any] | None = None
    profile: bytes | None = None

    @property
    def is_grey(self) -> bool:
        return self.pixels.ndim == 2

    @property
    def depth(self) -> Depth:
        return 16 if self.pixels.dtype == np.uint16 else 8

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def rgb(self) -> ByteImage:
        """Return (H, W, 3) uint8 as the networks see it: grey repeated, 16 bit rounded to 8, hidden colours replaced.

        Colours under full transparency are arbitrary, often black; enlarging would bleed them into the visible edge. They get the colour
        of the nearest visible pixel.
        """
        pixels = self.pixels if self.depth == 8 else np.rint(self.pixels / 257).astype(np.uint8)  # 65535 / 257 = 255
        colours = np.repeat(pixels[..., None], 3, axis=2) if self.is_grey else pixels
        return colours if self.alpha is None else _fill_hidden(colours, self.alpha == 0)

    def rebuilt(self, restored: Tensor) -> Picture:
        """Return the picture of this one's kind with the colours ``restored`` (3, H, W) in [0, 1], of this one's size or an enlargement."""
        height, width = restored.shape[-2:]
        alpha = None if self.alpha is None else _enlarge_channel(self.alpha, height, width)
        return Picture(pixels=_quantised(restored, grey=self.is_grey, depth=self.depth), alpha=alpha, profile=self.profile)


def from_pil(image: Image.Image) -> Picture:
    """Take a Pillow image apart.

    Raises:
        ValueError: for floating-point pixels, whose range is not defined.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bit")
    profile = image.info.get("icc_profile") if image.mode in _KEEPS_PROFILE else None
    image.load()
    if image.getexif().get(ORIENTATION, 1) != 1:  # Pillow would copy a picture that stands upright, and one of the right mode below
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey, whatever Pillow's name for it
        return Picture(pixels=np.asarray(image, dtype=np.int64).clip(0, 65535).astype(np.uint16), profile=profile)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        pixels = to_array(image.convert("RGBA"))
        return Picture(pixels=pixels[..., 0].copy() if grey else pixels[..., :3].copy(), alpha=pixels[..., 3].copy(), profile=profile)
    mode = "L" if grey else "RGB"
    return Picture(pixels=to_array(image if image.mode == mode else image.convert(mode)), profile=profile)


def to_pil(picture: Picture) -> Image.Image:
    """Return a Pillow image of mode L, LA, RGB, RGBA or I;16; its colours are cut to 8 bit where Pillow has no 16-bit mode."""
    pixels, alpha = picture.pixels, picture.alpha
    if picture.depth == 16 and not (picture.is_grey and alpha is None):
        pixels = np.rint(pixels / 257).astype(np.uint8)
        alpha = None if alpha is None else np.rint(alpha / 257).astype(np.uint8)
    image = Image.fromarray(pixels)
    if alpha is not None:
        image.putalpha(Image.fromarray(alpha))
    if picture.profile:
        image.info["icc_profile"] = picture.profile
    return image


def _fill_hidden(colours: ByteImage, hidden: NDArray[np.bool_]) -> ByteImage:
    if not hidden.any() or hidden.all():
        return colours
    # Each hidden pixel gets the label of the visible pixel nearest to it.
    _, labels = cv2.distanceTransformWithLabels(hidden.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    palette = np.zeros((int(labels.max()) + 1, 3), dtype=np.uint8)
    palette[labels[~hidden]] = colours[~hidden]
    return palette[labels]


def _enlarge_channel(channel: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize (h, w) uint8 or uint16 to (height, width) with Pillow's bicubic."""
    if channel.dtype == np.uint8:
        return enlarge_bicubic(channel, height, width)
    enlarged = Image.fromarray(channel.astype(np.float32)).resize((width, height), Image.Resampling.BICUBIC)
    return np.rint(np.asarray(enlarged).clip(0, 65535)).astype(np.uint16)


def _quantised(restored: Tensor, *, grey: bool, depth: Depth) -> NDArray[Any]:
    """Round (3, H, W) in [0, 1] to (H, W, 3) or, its luma, to (H, W); strip by strip, as a large picture has no room for copies."""
    _, height, width = restored.shape
    full, dtype = (255, np.uint8) if depth == 8 else (65535, np.uint16)
    pixels = np.empty((height, width) if grey else (height, width, 3), dtype=dtype)
    rows = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, rows):
        strip = restored[:, top : top + rows].numpy()
        values = sum(weight * channel for weight, channel in zip(_LUMA, strip, strict=True)) if grey else strip.transpose(1, 2, 0)
        pixels[top : top + rows] = np.rint(np.clip(values, 0, 1) * np.float32(full))
    return pixels
