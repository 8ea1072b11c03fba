"""Opening a picture: its header is judged before memory is taken for its pixels.

A file of 200 bytes can claim 60000 x 60000 pixels, and a decoder takes the memory for them before it finds that they are not there. Pillow
has a guard of its own, a warning at 89 megapixels and an error at twice that, which refuses real photos; it is lifted here.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image, ImageFile

DEFAULT_MEGAPIXELS = 300.0
"""Above the largest photos of a single shot (200 megapixels), and under 1 GB as 8-bit RGB."""

VARIABLE = "OSEDIFF_MAX_MEGAPIXELS"
_lifting = threading.RLock()
_OF_DAMAGE = (struct.error, zlib.error, EOFError, OverflowError, IndexError, KeyError, TypeError)


def set_max_megapixels(value: float) -> None:
    """Refuse larger pictures from now on, in this process and in those that it starts (the loaders' workers)."""
    os.environ[VARIABLE] = repr(float(value))


def max_megapixels() -> float:
    """Return the largest size that is opened, in 10^6 pixels."""
    return float(os.environ.get(VARIABLE, DEFAULT_MEGAPIXELS))


@contextmanager
def open_picture(file: Path | IO[bytes]) -> Iterator[ImageFile.ImageFile]:
    """Yield the picture with its header read and no pixel decoded; what decoding raises of a damaged file becomes a ValueError.

    Raises:
        ValueError: its header claims more pixels than are allowed, in one clause that names the key; it is a pipe or a device, which could
            be waited for without end; or it is damaged.
        OSError, SyntaxError: the file is missing, or no picture.
    """
    try:
        with _opened(file) as image:
            _judge(image)
            yield image
    except _OF_DAMAGE as error:
        raise ValueError(f"damaged ({type(error).__name__}: {error})") from error


def unidentified(path: Path) -> str:
    """Return, in one clause, what ``path`` is that Pillow does not know: no image, or a TIFF of a kind that it does not read."""
    with path.open("rb") as file:
        tiff = file.read(4) in (b"II*\0", b"MM\0*")
    return "a TIFF of a kind that is not read: save it with 8 or 16 bits a channel" if tiff else "not an image"


def _judge(image: Image.Image) -> None:
    width, height = image.size
    megapixels, most = width * height / 1e6, max_megapixels()
    if megapixels > most:
        raise ValueError(f"its header claims {width} x {height} = {megapixels:,.0f} megapixels, more than max_megapixels={most:g}")


def _opened(file: Path | IO[bytes]) -> ImageFile.ImageFile:
    from PIL import Image  # not above: the command line knows this module, and its help need not wait for Pillow

    if isinstance(file, Path) and not file.is_file():
        if file.exists():
            raise ValueError("no file")
        if file.is_symlink():
            raise FileNotFoundError("a link to nothing")
    with _lifting:  # Pillow's limit is a global of its module, and files are checked in several threads
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
