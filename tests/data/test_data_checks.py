"""Unusable images are all found, all named, and then refused or left out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from conftest import write_photo

from osediff_exp.data.checks import REPORT_NAME, ImageCheck, find_bad_images
from osediff_exp.data.sources import ImageSource
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def spoil(photos: Path) -> None:
    """Truncate 0.png, make 1.png too small, turn 2.png into text."""
    (photos / "0.png").write_bytes((photos / "0.png").read_bytes()[:3000])
    write_photo(photos / "1.png", height=31, width=100)
    (photos / "2.png").write_text("not a picture")


def test_header_finds_kind_and_size_full_finds_truncation(photos: Path) -> None:
    spoil(photos)
    paths = [*sorted(photos.glob("*.png")), photos / "gone.png"]
    header = {bad.path.name: bad.reason for bad in find_bad_images(paths, min_size=32)}
    assert header == {"1.png": "100 x 31, needs 32 x 32", "2.png": "not an image", "gone.png": "does not exist"}
    full = {bad.path.name: bad.reason for bad in find_bad_images(paths, min_size=32, verify="full")}
    assert set(full) - set(header) == {"0.png"}
    assert full["0.png"].startswith("unreadable: ")


def test_refuse_names_ten_in_one_line_and_writes_all(tmp_path: Path) -> None:
    for number in range(12):
        write_photo(tmp_path / "photos" / f"{number:02}.png", height=8, width=8)
    check = ImageCheck()
    assert check.usable(ImageSource(root=str(tmp_path / "photos")).pictures(), min_size=16) == []
    with pytest.raises(UserError) as caught:
        check.finish(on_bad="refuse", report_dir=tmp_path / "run")
    message = str(caught.value)
    assert message.startswith("12 of 12 images cannot be used: ")
    assert "09.png" in message
    assert "10.png" not in message
    assert "and 2 more" in message
    assert "data.bad_images=skip" in message
    assert "\n" not in message
    assert len((tmp_path / "run" / REPORT_NAME).read_text().splitlines()) == 12
    assert [path.name for path in (tmp_path / "run").iterdir()] == [REPORT_NAME]


def test_skip_keeps_the_others_and_says_so(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    spoil(photos)
    check = ImageCheck(verify="full")
    kept = check.usable(ImageSource(root=str(photos)).pictures(), min_size=32)
    assert [picture.name for picture in kept] == ["3", "4", "5"]
    with caplog.at_level(logging.WARNING):
        check.finish(on_bad="skip")
    assert caplog.messages[0].startswith("3 of 6 images are left out: ")
