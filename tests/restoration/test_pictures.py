"""Photos of every kind: what goes in comes out again, and nothing is written by halves."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from osediff_exp.restoration.picture_files import read_picture, write_picture, written_whole
from osediff_exp.restoration.pictures import Picture, from_pil, to_pil


def pixels(*shape: int, bits: int = 8) -> NDArray[Any]:
    return np.random.default_rng(len(shape)).integers(0, 2**bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


def picture(*, grey: bool = False, alpha: bool = False, bits: int = 8) -> Picture:
    return Picture(pixels=pixels(*((9, 7) if grey else (9, 7, 3)), bits=bits), alpha=pixels(9, 7, bits=bits) if alpha else None)


def as_tensor(colours: NDArray[Any], full: int) -> Tensor:
    colours = colours if colours.ndim == 3 else np.repeat(colours[..., None], 3, 2)
    return torch.from_numpy(colours.astype(np.float32) / np.float32(full)).permute(2, 0, 1)


KINDS = [(grey, alpha, bits) for grey in (False, True) for alpha in (False, True) for bits in (8, 16)]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("grey", "alpha", "bits"), KINDS)
def test_what_is_written_is_read_again(tmp_path: Path, grey: bool, alpha: bool, bits: int, suffix: str) -> None:
    before = picture(grey=grey, alpha=alpha, bits=bits)
    write_picture(before, tmp_path / f"x{suffix}")
    after = read_picture(tmp_path / f"x{suffix}")
    expected = before.pixels
    if grey and alpha and bits == 16:  # there is no writer for this kind: the colours are equal
        expected = np.repeat(expected[..., None], 3, axis=2)
    np.testing.assert_array_equal(after.pixels, expected)
    assert after.depth == bits
    if before.alpha is None:
        assert after.alpha is None
    else:
        np.testing.assert_array_equal(after.alpha, before.alpha)
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"]


@pytest.mark.parametrize(("grey", "alpha", "bits"), KINDS)
def test_rebuilding_keeps_kind_and_every_bit(grey: bool, alpha: bool, bits: int) -> None:
    before = picture(grey=grey, alpha=alpha, bits=bits)
    after = before.rebuilt(as_tensor(before.pixels, 2**bits - 1))
    np.testing.assert_array_equal(after.pixels, before.pixels)
    assert after.pixels.dtype == before.pixels.dtype
    assert (after.alpha is None) == (before.alpha is None)
    if before.alpha is not None:
        np.testing.assert_array_equal(after.alpha, before.alpha)


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_is_enlarged_by_bicubic(bits: int) -> None:
    before = picture(alpha=True, bits=bits)
    after = before.rebuilt(torch.zeros(3, 36, 28))
    assert before.alpha is not None
    source = before.alpha if bits == 8 else before.alpha.astype(np.float32)
    expected = np.asarray(Image.fromarray(source).resize((28, 36), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(after.alpha, expected.clip(0, 2**bits - 1), atol=0.5)


def test_networks_see_16_bits_as_8() -> None:
    grey = Picture(pixels=np.array([[0, 128, 129, 257, 65535]], dtype=np.uint16))
    np.testing.assert_array_equal(grey.rgb()[0], np.repeat([[0], [0], [1], [1], [255]], 3, axis=1))


def test_colours_that_nobody_sees_do_not_bleed() -> None:
    colours, alpha = np.zeros((9, 9, 3), dtype=np.uint8), np.zeros((9, 9), dtype=np.uint8)
    colours[2:5, 2:5], alpha[2:5, 2:5] = (200, 30, 40), 255
    colours[7, 7], alpha[7, 7] = (10, 250, 0), 1
    seen = Picture(pixels=colours, alpha=alpha).rgb()
    assert {tuple(map(int, colour)) for colour in seen.reshape(-1, 3)} == {(200, 30, 40), (10, 250, 0)}
    np.testing.assert_array_equal(seen[0, 0], (200, 30, 40))
    np.testing.assert_array_equal(seen[8, 8], (10, 250, 0))
    np.testing.assert_array_equal(Picture(pixels=colours, alpha=0 * alpha).rgb(), colours)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("L", "L"),
        ("1", "L"),
        ("LA", "LA"),
        ("RGB", "RGB"),
        ("RGBA", "RGBA"),
        ("P", "RGB"),
        ("CMYK", "RGB"),
        ("I;16", "I;16"),
        ("I", "I;16"),
    ],
)
def test_pillow_modes(mode: str, expected: str) -> None:
    source = pixels(6, 5, bits=16) if mode.startswith("I") else pixels(6, 5, 4 if "A" in mode else 3)
    image = Image.fromarray(source) if mode == "I;16" else Image.fromarray(source).convert(mode)
    rebuilt = to_pil(from_pil(image))
    assert rebuilt.mode == expected
    assert rebuilt.size == (5, 6)
    if mode == expected:
        np.testing.assert_array_equal(np.asarray(rebuilt), np.asarray(image))


def test_transparency_of_palettes_and_key_colours() -> None:
    palette = Image.fromarray(pixels(6, 5, 4)).convert("RGB").quantize(4)
    palette.info["transparency"] = 1
    key = Image.new("RGB", (2, 1), (7, 8, 9))
    key.putpixel((1, 0), (1, 2, 3))
    key.info["transparency"] = (1, 2, 3)
    np.testing.assert_array_equal(from_pil(palette).alpha, np.where(np.asarray(palette) == 1, 0, 255))
    np.testing.assert_array_equal(from_pil(key).alpha, [[255, 0]])


def with_orientation(path: Path, orientation: int) -> None:
    """Add an EXIF chunk to a PNG file."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\x00\x00")
    content = path.read_bytes()
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    path.write_bytes(content[:33] + chunk + content[33:])  # 8 bytes of signature and 25 of the header


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 16])
def test_the_cameras_rotation_is_applied(tmp_path: Path, bits: int, orientation: int) -> None:
    stored = Picture(pixels=pixels(3, 4, 3, bits=bits))
    write_picture(stored, tmp_path / "x.png")
    with_orientation(tmp_path / "x.png", orientation)
    turn = [None, None, 0, 3, 1, 5, 4, 6, 2][orientation]  # Pillow's Transpose, as exif_transpose has it
    expected = stored.pixels
    if turn is not None:
        planes = [
            np.asarray(Image.fromarray(plane.astype(np.int32)).transpose(Image.Transpose(turn))) for plane in expected.transpose(2, 0, 1)
        ]
        expected = np.dstack(planes)
    np.testing.assert_array_equal(read_picture(tmp_path / "x.png").pixels, expected)


def test_the_colour_profile_travels_along(tmp_path: Path) -> None:
    Image.fromarray(pixels(4, 4, 3)).save(tmp_path / "in.png", icc_profile=b"a profile")
    write_picture(read_picture(tmp_path / "in.png"), tmp_path / "out.jpg")
    with Image.open(tmp_path / "out.jpg") as written:
        assert written.info["icc_profile"] == b"a profile"
    Image.new("CMYK", (4, 4)).save(tmp_path / "cmyk.jpg", icc_profile=b"of ink")
    assert read_picture(tmp_path / "cmyk.jpg").profile is None


def test_opencv_wrote_what_others_read(tmp_path: Path) -> None:
    before = picture(bits=16)
    write_picture(before, tmp_path / "x.png")
    bgr = cv2.imread(str(tmp_path / "x.png"), cv2.IMREAD_UNCHANGED)
    assert bgr is not None
    np.testing.assert_array_equal(bgr[..., ::-1], before.pixels)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("x.jpg", {"alpha": True}, "cannot hold transparency"),
        ("x.webp", {"bits": 16}, "cannot hold 16 bits"),
        ("x.gif", {}, "cannot write .gif"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path: Path, name: str, kind: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_picture(picture(**kind), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_too_long_for_its_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot hold 17000 x 1 pixels"):
        write_picture(Picture(pixels=np.zeros((1, 17000, 3), dtype=np.uint8)), tmp_path / "x.webp")


def test_bad_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(tmp_path / "float.tif")
    write_picture(picture(), tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])
    with pytest.raises(ValueError, match="not an image"):
        read_picture(tmp_path / "text.png")
    with pytest.raises(ValueError, match="floating-point pixels"):
        read_picture(tmp_path / "float.tif")
    assert cv2.imwrite(str(tmp_path / "colours.tif"), np.zeros((2, 2, 3), dtype=np.float32))
    with pytest.raises(ValueError, match="a TIFF of a kind that is not read: save it with 8 or 16 bits"):
        read_picture(tmp_path / "colours.tif")
    with pytest.raises(OSError, match=r"truncated|broken"):
        read_picture(tmp_path / "cut.png")


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x.png"
    target.write_bytes(b"old")
    writing = written_whole(target)
    writing.__enter__().write_bytes(b"ne")
    assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)  # nor is the interruption swallowed
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("x.png", b"old")]
