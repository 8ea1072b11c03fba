"""Every kind of file loads as the RGB picture it shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from PIL import Image

from osediff_exp.data.cache import ImageLoader
from osediff_exp.data.images import crop_round, enlarge_bicubic, load_rgb, read_size, to_array, to_bytes, to_float
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.random.default_rng(7).integers(0, 256, (6, 10, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]


def saved(image: Image.Image, path: Path, **options: object) -> np.ndarray:
    image.save(path, **options)
    return load_rgb(path)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_lossless_rgb_is_unchanged(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(saved(Image.fromarray(PIXELS), tmp_path / f"a{suffix}"), PIXELS)


def test_lossless_webp_is_unchanged(tmp_path: Path) -> None:
    np.testing.assert_array_equal(saved(Image.fromarray(PIXELS), tmp_path / "a.webp", lossless=True), PIXELS)


def test_grey_is_repeated(tmp_path: Path) -> None:
    np.testing.assert_array_equal(saved(Image.fromarray(GREY), tmp_path / "a.png"), GREY[..., None].repeat(3, 2))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_keeps_its_range(tmp_path: Path, suffix: str) -> None:
    wide = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(saved(Image.fromarray(wide), tmp_path / f"a{suffix}"), GREY[..., None].repeat(3, 2))


def test_16_bit_colour_png_keeps_its_range_and_channel_order(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), PIXELS[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(load_rgb(tmp_path / "a.png"), PIXELS)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    alpha = np.full((6, 10), 255, np.uint8)
    alpha[:, 5:] = 0
    loaded = saved(Image.fromarray(np.dstack([PIXELS, alpha])), tmp_path / "a.png")
    np.testing.assert_array_equal(loaded[:, :5], PIXELS[:, :5])
    assert (loaded[:, 5:] == 255).all()


def test_palette_is_expanded(tmp_path: Path) -> None:
    few = np.array([[255, 0, 0], [0, 128, 0], [1, 2, 3]], np.uint8)[np.arange(60).reshape(6, 10) % 3]
    indexed = Image.fromarray(few).quantize(3, dither=Image.Dither.NONE)
    assert indexed.mode == "P"
    np.testing.assert_array_equal(saved(indexed, tmp_path / "a.png"), few)


@pytest.mark.parametrize("colour", [(255, 0, 0), (255, 255, 255), (0, 0, 255)])
def test_cmyk_jpeg_shows_its_colour(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    loaded = saved(Image.new("RGB", (32, 32), colour).convert("CMYK"), tmp_path / "a.jpg", quality=95)
    assert np.abs(loaded.astype(int) - colour).max() <= 4


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_rotation_is_applied_to_pixels_and_size(tmp_path: Path, orientation: int, turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    loaded = saved(Image.fromarray(PIXELS), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(loaded, np.rot90(PIXELS, turns))
    assert read_size(tmp_path / "a.png") == loaded.shape[:2]


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="floating-point"):
        saved(Image.fromarray(GREY.astype(np.float32)), tmp_path / "a.tif")


def test_reduction_is_the_largest_integer_box_that_keeps_the_size(tmp_path: Path) -> None:
    pixels = np.kron(PIXELS, np.ones((3, 3, 1), np.uint8))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(load_rgb(tmp_path / "a.png", reduce_to=6), PIXELS)
    np.testing.assert_array_equal(load_rgb(tmp_path / "a.png", reduce_to=10), pixels)


def test_bytes_and_floats_round_trip() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    floats = to_float(every)
    assert floats.dtype == np.float32
    assert (floats.min(), floats.max()) == (0, 1)
    np.testing.assert_array_equal(to_bytes(floats), every)


def test_enlargement_is_pillows_bicubic() -> None:
    expected = Image.fromarray(PIXELS).resize((40, 24), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(enlarge_bicubic(PIXELS, 24, 40), np.asarray(expected))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (1500, 1100), (2_000_000, 2)])
def test_strips_are_the_whole_array(mode: str, size: tuple[int, int]) -> None:
    picture = Image.effect_noise(size, 50).convert(mode)
    found = to_array(picture)
    assert np.array_equal(found, np.array(picture))
    assert found.flags.writeable


@pytest.mark.parametrize(("centre", "top", "left"), [(None, 1, 3), ((3, 5), 1, 3), ((0, 0), 0, 0), ((5, 9), 2, 6)])
def test_crop_round_a_centre_stays_inside(centre: tuple[int, int] | None, top: int, left: int) -> None:
    np.testing.assert_array_equal(crop_round(PIXELS, 4, centre), PIXELS[top : top + 4, left : left + 4])


def test_cache_keeps_what_fits(tmp_path: Path) -> None:
    big, small = tmp_path / "big.png", tmp_path / "small.png"
    Image.new("RGB", (800, 800)).save(big)  # 1.8 MiB
    Image.new("RGB", (100, 100)).save(small)
    load = ImageLoader(cache_images=1)
    assert load(big) is not load(big)
    assert load(small) is load(small)
    assert not load(small).flags.writeable
    assert (everything := ImageLoader(cache_images=True))(big) is everything(big)
    assert (nothing := ImageLoader())(small) is not nothing(small)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(UserError, match=r"cut\.png cannot be decoded .* data\.verify=full"):
        ImageLoader()(path)


def test_loaders_side_by_side_share_the_memory(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.png" for k in range(2)]
    for path in paths:
        Image.new("RGB", (512, 512)).save(path)  # three quarters of a MiB
    load = ImageLoader(cache_images=1)
    beside = load.beside()
    assert load(paths[0]) is load(paths[0])
    assert beside(paths[1]) is not beside(paths[1])
