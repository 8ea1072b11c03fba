"""Photos on disk: read with all their bits, written whole or not at all."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from osediff_exp.data.images import ORIENTATION
from osediff_exp.picture_header import open_picture, unidentified
from osediff_exp.restoration.pictures import Picture, from_pil, to_pil

_HOLDS_ALPHA = (".png", ".webp", ".tif", ".tiff")
_HOLDS_16_BIT = (".png", ".tif", ".tiff")
_OPTIONS: dict[str, dict[str, Any]] = {
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "quality": 95},
    ".bmp": {"format": "BMP"},
    ".tif": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    ".tiff": {"format": "TIFF", "compression": "tiff_adobe_deflate"},
    ".png": {"format": "PNG", "compress_level": 4},  # 0.4 of the time of level 6, files 1 % larger
}


def read_picture(path: Path) -> Picture:
    """Read png, jpg, webp, bmp or tif.

    Raises:
        OSError, ValueError, SyntaxError: the file is missing, damaged, no image, larger than ``max_megapixels``, or of a kind that is not
            supported; one short clause.
    """
    try:
        with open_picture(path) as image:
            # Pillow would cut colours of 16 bit to 8 without a word; its decoder's name tells.
            if ";16" in str(image.tile) and not image.mode.startswith("I"):
                return _read_16_bit(path, image)
            image.load()
            return from_pil(image)
    except UnidentifiedImageError as error:
        raise ValueError(unidentified(path)) from error


def write_picture(picture: Picture, path: Path) -> None:
    """Write ``picture`` whole or not at all, in the format that the suffix names.

    Raises:
        ValueError: the format cannot hold the picture.
        OSError: the disk is full, or the folder cannot be written.
    """
    with written_whole(path) as temporary:
        temporary.write_bytes(encode_picture(picture, path.suffix))


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary name beside ``path`` (the same for every try: a killed job's leftover is overwritten), then put it in place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def encode_picture(picture: Picture, suffix: str) -> memoryview:
    """Return the bytes of ``picture`` in the format of ``suffix`` (".png", ".jpg", ...).

    They are made in memory because Pillow does not tell a full disk from its own failures.

    Raises:
        ValueError: the format is unknown or cannot hold the picture.
    """
    suffix = suffix.lower()
    if suffix not in _OPTIONS:
        raise ValueError(f"cannot write {suffix or 'a file without suffix'}: use format=png")
    if picture.alpha is not None and suffix not in _HOLDS_ALPHA:
        raise ValueError(f"{suffix} cannot hold transparency: use format=png")
    if picture.depth == 16 and suffix not in _HOLDS_16_BIT:
        raise ValueError(f"{suffix} cannot hold 16 bits: use format=png")
    if picture.depth == 16 and not (picture.is_grey and picture.alpha is None):
        return _encode_16_bit(picture, suffix)
    return _encode(picture, suffix)


def _read_16_bit(path: Path, image: Image.Image) -> Picture:
    pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
        raise ValueError("16-bit colours of a kind that OpenCV does not read; save it as 16-bit PNG")
    pixels = _upright(pixels, image.getexif().get(ORIENTATION, 1))
    alpha = pixels[..., 3].copy() if pixels.shape[2] == 4 else None
    colours = pixels[..., 0] if image.mode.startswith("L") else pixels[..., 2::-1]  # OpenCV's order is BGR
    return Picture(pixels=colours.copy(), alpha=alpha, profile=image.info.get("icc_profile"))


def _encode(picture: Picture, suffix: str) -> memoryview:
    profile: dict[str, Any] = {"icc_profile": picture.profile} if picture.profile else {}
    encoded = io.BytesIO()
    try:
        to_pil(picture).save(encoded, **_OPTIONS[suffix], **profile)
    except (OSError, SystemError, ValueError) as error:  # JPEG and WebP have a largest side
        height, width = picture.size
        raise ValueError(f"{suffix} cannot hold {width} x {height} pixels ({error}): use format=png") from error
    return encoded.getbuffer()


def _encode_16_bit(picture: Picture, suffix: str) -> memoryview:
    """Encode what Pillow has no mode for: 16-bit colours, or grey with alpha, which OpenCV has as equal colours only."""
    pixels = picture.pixels
    colours = [pixels] * 3 if picture.is_grey else [pixels[..., 2], pixels[..., 1], pixels[..., 0]]  # OpenCV's order is BGR
    done, encoded = cv2.imencode(suffix, np.dstack(colours if picture.alpha is None else [*colours, picture.alpha]))
    if not done:
        raise ValueError(f"OpenCV cannot write this picture as {suffix}: use format=png")
    return encoded.data


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply an EXIF orientation (1..8: EXIF 2.32, section 4.6.4) to (H, W, C)."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return pixels[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
