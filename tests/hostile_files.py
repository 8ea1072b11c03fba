"""Files that a folder of photos may hold and should not: each is made by its own few lines, under a name that says what it is."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

GOOD, BAD, EITHER = "good", "bad", "either"
"""What a reader must do: give a picture, refuse it, or one of the two (Pillow's versions differ)."""

Maker = Callable[[Path], object]


def photo(mode: str = "RGB", size: tuple[int, int] = (48, 40)) -> Image.Image:
    coarse = np.random.default_rng(5).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    photo(mode).save(stream, format=kind, **options)
    return stream.getvalue()


def chunk(name: bytes, data: bytes, *, crc: int | None = None) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if crc is None else crc)


def png(width: int, height: int, *, pixels: bytes = b"", more: bytes = b"", kind: int = 2, crc: int | None = None) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    body = chunk(b"IHDR", header, crc=crc) + more + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff(width: int, height: int, offset: int = 8) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 1)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\x00" + struct.pack("<I", offset) + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)


def jpeg_claiming(width: int, height: int) -> bytes:
    whole = bytearray(encoded("JPEG"))
    place = whole.index(b"\xff\xc0") + 5
    whole[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(whole)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def written(data: bytes) -> Maker:
    return lambda path: path.write_bytes(data)


def saved(mode: str, size: tuple[int, int] = (48, 40), **options: Any) -> Maker:
    return lambda path: photo(mode, size).save(path, **options)


def frames(**options: Any) -> Maker:
    return lambda path: photo().save(path, save_all=True, append_images=[photo().rotate(90), photo().rotate(180)], **options)


def exif(orientation: int) -> Maker:
    def make(path: Path) -> None:
        data = Image.Exif()
        data[0x0112] = orientation
        photo().save(path, exif=data)

    return make


def array(values: np.ndarray) -> Maker:
    return lambda path: Image.fromarray(values).save(path)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "hello")


_WIDE = np.random.default_rng(1).integers(0, 65536, (40, 48, 3), dtype=np.uint16)


@cache
def _deep_text() -> bytes:
    """80 MiB of text, made only where it is written: every worker imports this module."""
    return chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(b"x" * (80 << 20), 9))


HOSTILE: dict[str, tuple[Maker, str]] = {
    "empty.png": (written(b""), BAD),
    "one_byte.jpg": (written(b"\xff"), BAD),
    "zeros.png": (written(bytes(4096)), BAD),
    "noise.webp": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(4096)), BAD),
    "truncated_png.png": (written(half(encoded("PNG"))), BAD),
    "truncated_jpg.jpg": (written(half(encoded("JPEG"))), BAD),
    "truncated_webp.webp": (written(half(encoded("WEBP"))), BAD),
    "truncated_tif.tif": (written(half(encoded("TIFF"))), BAD),
    "truncated_bmp.bmp": (written(half(encoded("BMP"))), BAD),
    "without_pixels.png": (written(png(48, 40)), BAD),
    "no_width.png": (written(png(0, 40)), BAD),
    "negative.bmp": (written(bmp(-48, 40)), BAD),
    "bad_crc.png": (written(png(8, 8, pixels=bytes(8 * 25), crc=7)), BAD),
    "bad_pixels.png": (written(encoded("PNG").replace(b"IDAT", b"IDAX")), BAD),
    "bad_offset.tif": (written(tiff(48, 40, offset=1 << 30)), BAD),
    "bomb_png.png": (written(png(60000, 60000, kind=6)), BAD),
    "bomb_long.png": (written(png(2**31 - 1, 2)), BAD),
    "bomb_bmp.bmp": (written(bmp(60000, 60000)), BAD),
    "bomb_tif.tif": (written(tiff(2_000_000, 2_000_000)), BAD),
    "bomb_jpg.jpg": (written(jpeg_claiming(65500, 65500)), BAD),
    "text_bomb.png": (lambda path: path.write_bytes(png(8, 8, pixels=bytes(8 * 25), more=_deep_text())), EITHER),
    "cmyk_jpg.jpg": (saved("CMYK"), GOOD),
    "cmyk_tif.tif": (saved("CMYK"), GOOD),
    "lab.tif": (saved("LAB"), GOOD),
    "ycbcr.tif": (saved("YCbCr"), EITHER),
    "palette.png": (saved("P"), GOOD),
    "palette_clear.png": (saved("P", transparency=0), GOOD),
    "rgba.png": (saved("RGBA"), GOOD),
    "grey_alpha.png": (saved("LA"), GOOD),
    "grey.jpg": (saved("L"), GOOD),
    "one_bit_png.png": (saved("1"), GOOD),
    "one_bit_tif.tif": (saved("1"), GOOD),
    "progressive.jpg": (saved("RGB", progressive=True), GOOD),
    "lzw.tif": (saved("RGB", compression="tiff_lzw"), GOOD),
    "deflate.tif": (saved("RGB", compression="tiff_adobe_deflate"), GOOD),
    "animated_webp.webp": (frames(), GOOD),
    "animated_png.png": (frames(), GOOD),
    "pages.tif": (frames(), GOOD),
    "one.png": (saved("RGB", (1, 1)), GOOD),
    "thin.png": (saved("RGB", (1, 10000)), GOOD),
    "flat.jpg": (saved("RGB", (10000, 1)), GOOD),
    "is_a_jpeg.png": (written(encoded("JPEG")), GOOD),
    "is_a_png.jpg": (written(encoded("PNG")), GOOD),
    "is_a_gif.png": (written(encoded("GIF", "P")), GOOD),
    "is_a_text.jpg": (written(b"a photo, honestly\n" * 9), BAD),
    "is_a_page.jpg": (written(b"<!doctype html><title>404</title>"), BAD),
    "is_a_zip.png": (zipped, BAD),
    "is_a_pdf.tif": (written(b"%PDF-1.4\n%%EOF"), BAD),
    "wide_grey.png": (array(_WIDE[..., 0]), GOOD),
    "wide_colours.png": (lambda path: cv2.imwrite(str(path), _WIDE), GOOD),
    "float.tif": (array(np.ones((40, 48), dtype=np.float32)), BAD),
    "whole_numbers.tif": (array(np.ones((40, 48), dtype=np.int32)), GOOD),
    "turned.jpg": (exif(6), GOOD),
    "turned_oddly.jpg": (exif(99), GOOD),
    "bad_exif.jpg": (saved("RGB", exif=b"Exif\x00\x00garbage"), EITHER),
    "bad_profile.png": (saved("RGB", icc_profile=b"no profile"), GOOD),
    "UPPER.PNG": (written(encoded("PNG")), GOOD),
    "ünïcödé 写真.png": (written(encoded("PNG")), GOOD),
    "two\nlines.png": (written(encoded("PNG")), GOOD),
    "broken\nlines.png": (written(b""), BAD),
    "quote'\" =,[x].png": (written(encoded("PNG")), GOOD),
    f"{'long' * 50}.png": (written(encoded("PNG")), GOOD),
    "link.png": (lambda path: path.symlink_to("one.png"), GOOD),
}
"""Files that a folder's listing holds, and what becomes of each."""


def write_hostile(folder: Path) -> dict[str, str]:
    """Write them all into ``folder``; return what must become of each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (make, _) in HOSTILE.items():
        make(folder / name)
    return {name: fate for name, (_, fate) in HOSTILE.items()}


def write_no_files(folder: Path) -> None:
    """Write what has a photo's name and is no file: a folder, a pipe, links to nothing and to themselves."""
    (folder / "folder.png").mkdir()
    (folder / "nowhere.png").symlink_to("nothing.png")
    (folder / "loop.png").symlink_to("loop.png")
    os.mkfifo(folder / "pipe.png")
