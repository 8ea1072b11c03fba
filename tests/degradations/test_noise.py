"""Noise: strengths, shared channels, and Poisson's distribution level by level."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare, poisson

from osediff_exp.degradations.noise import RandomNoise, gaussian_noise, poisson_noise
from osediff_exp.degradations.poisson import poisson_table


@pytest.mark.parametrize("gray", [False, True])
def test_gaussian_noise_has_its_sigma_and_channels(gray: bool) -> None:
    image = np.full((256, 256, 3), 0.5, dtype=np.float32)
    noise = gaussian_noise(image, 20.0, gray, np.random.default_rng(0)) - 0.5
    n = noise.size / (3 if gray else 1)
    assert noise.std() * 255 == pytest.approx(20.0, rel=4.5 / np.sqrt(2 * n))
    assert abs(noise.mean()) * 255 < 4.5 * 20.0 / np.sqrt(n)
    correlation = np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]
    assert correlation == pytest.approx(1.0 if gray else 0.0, abs=4.5 / 256)


def test_noise_is_clamped_but_not_rounded() -> None:
    image = np.linspace(0, 1, 64 * 64 * 3, dtype=np.float32).reshape(64, 64, 3)
    noisy = gaussian_noise(image, 30.0, False, np.random.default_rng(0))
    assert noisy.min() == 0.0
    assert noisy.max() == 1.0
    assert np.abs(noisy * 255 - np.rint(noisy * 255)).max() > 0.4


@pytest.mark.parametrize("peak", [1, 16, 256])
@pytest.mark.parametrize("level", [1, 60, 128, 255])
def test_table_samples_poisson_exactly(peak: int, level: int) -> None:
    n, mean = 100_000, level / 255 * peak
    counts = poisson_table(peak).sample(np.full(n, level, dtype=np.uint8), np.random.default_rng(level))
    assert counts.mean() == pytest.approx(mean, abs=4.5 * np.sqrt(mean / n))
    assert counts.var() == pytest.approx(mean, abs=4.5 * np.sqrt((2 * mean**2 + mean) / n))
    expected = poisson.pmf(np.arange(400), mean) * n
    usual = expected > 5
    observed = np.bincount(counts, minlength=400)[usual]
    rest = n - observed.sum(), n - expected[usual].sum()
    assert chisquare([*observed, rest[0]], [*expected[usual], rest[1]]).pvalue > 1e-4


def test_level_zero_gets_no_counts() -> None:
    assert not poisson_table(256).sample(np.zeros(10_000, dtype=np.uint8), np.random.default_rng(0)).any()


@pytest.mark.parametrize("gray", [False, True])
def test_poisson_noise_has_the_levels_variance(gray: bool) -> None:
    # 16 gray levels between .2 and .8, so v = 16 and the variance of level x is scale^2 x / 16.
    levels = np.rint(np.linspace(0.2, 0.8, 16) * 255).astype(np.float32) / np.float32(255)
    image = np.repeat(np.repeat(levels[:, None, None], 20_000, 1), 3, 2)
    noise = poisson_noise(image, 0.3, gray, np.random.default_rng(0)) - image
    if gray:
        np.testing.assert_allclose(noise[..., 0], noise[..., 2], atol=1e-6)
    variance = noise[..., 0].astype(np.float64).var(axis=1)
    np.testing.assert_allclose(variance, 0.09 * levels / 16, rtol=0.06)
    np.testing.assert_allclose(noise[..., 0].mean(axis=1), 0.0, atol=4.5 * 0.3 * np.sqrt(0.8 / 16 / 20_000))


def test_the_number_of_distinct_values_sets_the_peak() -> None:
    # 17 distinct values: v = 32, so the unclamped values are multiples of 1/32 away from zero.
    image = np.zeros((40, 100, 3), dtype=np.float32)
    image[..., :] = (np.arange(4000) % 17).reshape(40, 100, 1).astype(np.float32) / np.float32(255)
    noisy = poisson_noise(image, 1.0, False, np.random.default_rng(0))
    np.testing.assert_allclose(noisy * 32, np.rint(noisy * 32), atol=1e-4)
    assert set(np.unique(np.rint(noisy * 32))) >= {0, 1, 2}


def test_kinds_follow_their_probabilities() -> None:
    rng, n = np.random.default_rng(0), 600
    noise = RandomNoise(gaussian_probability=0.5, gaussian_sigma=(20, 30), poisson_scale=(0.0, 0.0), gray_probability=0.4)
    image = np.full((8, 8, 3), 0.5, dtype=np.float32)
    drawn = [noise(image, rng) - image for _ in range(n)]
    gaussian = [d for d in drawn if np.abs(d).max() > 0.01]
    assert abs(len(gaussian) - n / 2) < 4.5 * np.sqrt(n / 4)
    gray = sum(bool(np.ptp(d, axis=2).max() < 1e-6) for d in gaussian)
    assert abs(gray - 0.4 * len(gaussian)) < 4.5 * np.sqrt(len(gaussian) * 0.24)
