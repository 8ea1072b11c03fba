"""Reading photos of any kind as 8-bit RGB, and the few conversions the data layer needs.

Everything a data set ships loads as (H, W, 3) uint8: grey is repeated, 16-bit is brought to 8 bit, palettes are expanded, CMYK is
converted, transparency is laid over white, and the camera's EXIF rotation is applied. Colour profiles (ICC) are ignored, as in the field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from osediff_exp.picture_header import open_picture

if TYPE_CHECKING:
    from pathlib import Path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FloatImage = NDArray[np.float32]
ByteImage = NDArray[np.uint8]

_STRIP_PIXELS = 1 << 20
ORIENTATION = 0x0112  # EXIF tag; the values 5..8 swap width and height


def is_image_file(path: Path) -> bool:
    """Tell by the suffix; the content is looked at when the images are checked."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_size(path: Path) -> tuple[int, int]:
    """Return (height, width) as :func:`load_rgb` will deliver them without a reduction (a PNG is decoded: EXIF may follow its pixels).

    Raises:
        OSError, ValueError: the file is missing, no image, or claims to be larger than ``max_megapixels``.
    """
    with open_picture(path) as image:
        width, height = image.size
        return (width, height) if image.getexif().get(ORIENTATION, 1) >= 5 else (height, width)


def load_rgb(path: Path, *, reduce_to: int | None = None) -> ByteImage:
    """Decode an image file into (H, W, 3) uint8 RGB.

    Args:
        path: png, jpg, webp, bmp or tif.
        reduce_to: where given, a photo whose shorter side is at least twice this is reduced once, by box averaging, by the largest
            integer factor that leaves the shorter side at least ``reduce_to`` pixels long.

    Raises:
        OSError, ValueError, SyntaxError: the file is missing, damaged, larger than ``max_megapixels``, or holds
            floating-point pixels (their range is not defined).
    """
    with open_picture(path) as image:
        image.load()
        rgb = _to_rgb(ImageOps.exif_transpose(image))
    factor = reduction_factor(min(rgb.size), reduce_to)
    return np.array(rgb.reduce(factor) if factor > 1 else rgb)


def reduction_factor(shorter_side: int, reduce_to: int | None) -> int:
    """Return the integer by which :func:`load_rgb` reduces a photo (1: not at all)."""
    return max(1, shorter_side // reduce_to) if reduce_to else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bit")
    if image.mode.startswith("I"):  # 16-bit grey: full scale is 65535, and 65535 / 257 = 255 exactly
        grey = np.rint(np.asarray(image, dtype=np.float64).clip(0, 65535) / 257)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def to_float(image: ByteImage) -> FloatImage:
    """Map uint8 to float32 in [0, 1], contiguous."""
    return np.ascontiguousarray(image, dtype=np.float32) / np.float32(255)


def to_bytes(image: FloatImage) -> ByteImage:
    """Map float32 in [0, 1] to the nearest uint8; values outside are clipped."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def enlarge_bicubic(image: ByteImage, height: int, width: int) -> ByteImage:
    """Resize (h, w, 3) uint8 to (height, width, 3) uint8 with Pillow's BICUBIC, the baseline of the field."""
    return to_array(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def to_array(image: Image.Image) -> NDArray[Any]:
    """Return ``np.array(image)``, strip by strip: in one piece, numpy and Pillow hold a large picture's bytes three times."""
    rows = max(1, _STRIP_PIXELS // max(1, image.width))
    if image.height <= rows:
        return np.array(image)
    strips = (np.asarray(image.crop((0, top, image.width, min(top + rows, image.height)))) for top in range(0, image.height, rows))
    first = next(strips)
    pixels = np.empty((image.height, *first.shape[1:]), dtype=first.dtype)
    pixels[:rows] = first
    for number, strip in enumerate(strips, 1):
        pixels[number * rows : (number + 1) * rows] = strip
    return pixels


def crop(image: ByteImage, *, top: int, left: int, height: int, width: int) -> ByteImage:
    """Return the given window of (H, W, 3); a window that does not fit is a bug of the caller."""
    window = image[top : top + height, left : left + width]
    assert window.shape[:2] == (height, width), f"window {height} x {width} at ({top}, {left}) leaves the image {image.shape}"
    return window


def crop_round(image: ByteImage, size: int, centre: tuple[int, int] | None = None) -> ByteImage:
    """Return the (size, size, 3) window round ``centre`` (row, column), pushed inward at the borders; None: the image's centre."""
    top, left = (
        min(max(middle - size // 2, 0), side - size) if centre else (side - size) // 2
        for middle, side in zip(centre or (0, 0), image.shape[:2], strict=True)
    )
    return crop(image, top=top, left=left, height=size, width=size)
