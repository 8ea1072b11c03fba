"""Headers are judged before memory is taken for pixels, wherever a picture is opened."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from osediff_exp.data.checks import find_bad_images
from osediff_exp.data.images import load_rgb, read_size
from osediff_exp.picture_header import DEFAULT_MEGAPIXELS, VARIABLE, max_megapixels, open_picture, set_max_megapixels
from osediff_exp.reporting.pictures import load_picture
from osediff_exp.restoration.picture_files import read_picture


@pytest.fixture(autouse=True)
def _own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, repr(DEFAULT_MEGAPIXELS))


def claiming(path: Path, width: int, height: int) -> Path:
    """Write a PNG of 100 bytes that claims so many 8-bit RGBA pixels and holds none."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    return path


@pytest.mark.parametrize("reader", [load_rgb, read_size, read_picture])
def test_every_reader_refuses_a_header_that_claims_too_much(tmp_path: Path, reader: Callable[[Path], object]) -> None:
    bomb = claiming(tmp_path / "bomb.png", 60000, 60000)
    with pytest.raises(ValueError, match=r"claims 60000 x 60000 = 3,600 megapixels, more than max_megapixels=300"):
        reader(bomb)


def test_checks_name_it_and_a_report_leaves_its_place_empty(tmp_path: Path) -> None:
    bomb = claiming(tmp_path / "bomb.png", 60000, 60000)
    assert "3,600 megapixels" in str(find_bad_images([bomb] * 8, min_size=1)[0])
    assert load_picture(bomb) is None


def test_photos_of_200_megapixels_are_opened_and_pillows_own_guard_is_left_as_it_was(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    with open_picture(claiming(tmp_path / "large.png", 16320, 12240)) as picture:
        assert picture.size == (16320, 12240)
    assert before == Image.MAX_IMAGE_PIXELS


def test_the_limit_is_the_users(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "small.png")
    set_max_megapixels(0.001)
    assert max_megapixels() == 0.001
    with pytest.raises(ValueError, match=r"max_megapixels=0\.001"):
        load_rgb(tmp_path / "small.png")
    set_max_megapixels(0.0012)
    assert load_rgb(tmp_path / "small.png").shape == (30, 40, 3)
