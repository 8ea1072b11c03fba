"""Resizing agrees with torch's interpolate, up and down, by size and by factor."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from osediff_exp.degradations.resizing import MODES, RandomScale, draw_mode, rescale, resize


def by_torch(image: np.ndarray, mode: str, **target: object) -> np.ndarray:
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    return F.interpolate(x, mode=mode, **target)[0].permute(1, 2, 0).numpy()  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(128, 128), (40, 61), (100, 128), (64, 64), (200, 150), (512, 512), (129, 127), (19, 19)])
def test_resize_is_torchs(crop: np.ndarray, mode: str, size: tuple[int, int]) -> None:
    np.testing.assert_allclose(resize(crop, *size, mode), by_torch(crop, mode, size=size), atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scale", [0.15, 0.3331, 0.5, 0.517, 0.77777, 0.95, 1.0, 1.02, 1.249, 1.4999])
def test_rescale_is_torchs_with_a_scale_factor(crop: np.ndarray, mode: str, scale: float) -> None:
    image = crop[:, :100]
    np.testing.assert_allclose(rescale(image, scale, mode), by_torch(image, mode, scale_factor=scale), atol=1e-5)


@pytest.mark.parametrize("mode", ["area", "bilinear"])
def test_a_factor_that_leaves_the_size_copies_as_in_torch(crop: np.ndarray, mode: str) -> None:
    np.testing.assert_array_equal(rescale(crop, 1.006, mode), by_torch(crop, mode, scale_factor=1.006))


def test_factors_and_modes_follow_their_probabilities() -> None:
    rng, n = np.random.default_rng(0), 4000
    random_scale = RandomScale(directions={"up": 0.2, "down": 0.7, "keep": 0.1}, factor=(0.15, 1.5))
    factors = np.array([random_scale.draw(rng) for _ in range(n)])
    for chosen, p in ((factors > 1, 0.2), (factors < 1, 0.7), (factors == 1, 0.1)):
        assert abs(chosen.sum() - p * n) < 4.5 * np.sqrt(n * p * (1 - p))
    assert factors[factors < 1].mean() == pytest.approx(0.575, abs=4.5 * 0.85 / np.sqrt(12 * 0.7 * n))
    assert factors[factors > 1].mean() == pytest.approx(1.25, abs=4.5 * 0.5 / np.sqrt(12 * 0.2 * n))
    modes = [draw_mode(rng) for _ in range(n)]
    assert all(abs(modes.count(mode) - n / 3) < 4.5 * np.sqrt(n * 2 / 9) for mode in MODES)
