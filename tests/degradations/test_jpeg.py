"""The floating-point JPEG against a block-by-block float64 one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osediff_exp.degradations.jpeg import jpeg, table_factor

from . import reference


@pytest.mark.parametrize("quality", [30.0, 49.5, 50.0, 77.3, 95.0])
@pytest.mark.parametrize("size", [(64, 96), (37, 51)])
def test_codec_equals_the_float64_reference(crop: np.ndarray, quality: float, size: tuple[int, int]) -> None:
    image = crop[: size[0], : size[1]]
    expected = reference.jpeg(torch.from_numpy(image.copy()).permute(2, 0, 1)[None], quality)[0].permute(1, 2, 0).numpy()
    difference = np.abs(jpeg(image, quality) - expected)
    # A coefficient that falls on a rounding boundary may go either way: a handful of blocks at most.
    assert (difference > 1e-5).mean() < 0.03
    assert np.median(difference) < 1e-6


def test_factor_of_the_tables() -> None:
    assert [table_factor(q) for q in (25.0, 50.0, 75.0)] == [2.0, 1.0, 0.5]
    assert table_factor(100.0) == 1e-3


def test_flat_gray_survives_when_its_level_is_on_the_dc_grid() -> None:
    # Quality 50: the DC step is 16, one eighth of it in level: 128 + 2 k is exact.
    image = np.full((32, 32, 3), 142 / 255, dtype=np.float32)
    np.testing.assert_allclose(jpeg(image, 50.0), image, atol=1e-6)


def test_best_quality_keeps_gray_pictures(crop: np.ndarray) -> None:
    gray = np.repeat(crop[..., :1], 3, axis=2)
    np.testing.assert_allclose(jpeg(gray, 100.0), gray, atol=1e-3)
