"""NIQE's parts against closed forms, samples of known distributions and independent implementations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osediff_exp.errors import UserError
from osediff_exp.metrics import niqe as niqe_module
from osediff_exp.metrics.aggd import fit_aggd, mean_of_aggd
from osediff_exp.metrics.niqe import NIQE, halve, image_features, niqe, niqe_of_luma, normalize_locally, pristine_model

RNG_SEED = 7


def texture(height: int, width: int, seed: int = RNG_SEED) -> np.ndarray:
    """Return a luma picture of smoothed noise, whole numbers 0..255."""
    noise = np.random.default_rng(seed).standard_normal((height, width)).cumsum(0).cumsum(1)
    return np.round(255 * (noise - noise.min()) / np.ptp(noise))


def test_the_model_is_a_distribution() -> None:
    mean, covariance = pristine_model()
    assert mean.shape == (36,)
    assert covariance.shape == (36, 36)
    assert np.allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12


def test_the_local_window_is_the_released_one() -> None:
    with np.load(Path(niqe_module.__file__).with_name("data") / "niqe_parameters.npz") as stored:
        window = stored["window"]
    impulse = np.zeros((15, 15))
    impulse[7, 7] = 1.0
    assert np.allclose(niqe_module._smooth(impulse)[4:11, 4:11], window, atol=1e-15)


def test_normalisation_removes_offset_and_keeps_flat_areas_at_zero() -> None:
    luma = texture(40, 50)
    assert np.allclose(normalize_locally(luma), normalize_locally(luma + 17.0), atol=1e-8)
    assert np.allclose(normalize_locally(np.full((20, 20), 99.0)), 0.0, atol=1e-9)


def test_halving_keeps_constants_and_maps_ramps_to_ramps() -> None:
    assert np.allclose(halve(np.full((16, 24), 7.0)), 7.0)
    ramp = np.arange(32.0) + np.zeros((16, 1))
    assert np.allclose(halve(ramp)[:, 2:-2], (2 * np.arange(16) + 0.5)[2:-2])


def test_halving_agrees_with_pillow_inside() -> None:
    luma = texture(64, 96)
    pillow = np.asarray(Image.fromarray(luma.astype(np.float32)).resize((48, 32), Image.Resampling.BICUBIC))
    assert np.abs(halve(luma) - pillow)[2:-2, 2:-2].max() < 1e-3


@pytest.mark.parametrize(("shape", "beta"), [(1.0, 0.5), (2.0, 1.5), (4.0, 3.0)])
def test_the_fit_recovers_symmetric_samples(shape: float, beta: float) -> None:
    rng = np.random.default_rng(RNG_SEED)
    samples = beta * rng.gamma(1 / shape, size=(2, 200_000)) ** (1 / shape) * rng.choice([-1, 1], size=(2, 200_000))
    alpha, left, right = fit_aggd(samples)
    assert alpha == pytest.approx([shape] * 2, rel=0.03)
    assert np.concatenate([left, right]) == pytest.approx([beta] * 4, rel=0.03)
    assert mean_of_aggd(alpha, left, right) == pytest.approx([0, 0], abs=0.02 * beta)


def test_the_fit_recovers_two_different_sides() -> None:
    rng = np.random.default_rng(RNG_SEED)
    size = np.abs(rng.standard_normal((1, 400_000))) * np.sqrt(2)  # |x| of shape 2, scale sqrt(2) * sigma
    left_side = rng.random(size.shape) < 1 / 4  # an AGGD's sides have the weights beta_l : beta_r
    alpha, left, right = fit_aggd(np.where(left_side, -size, 3 * size) / np.sqrt(2))
    assert [alpha[0], left[0], right[0]] == pytest.approx([2, np.sqrt(2), 3 * np.sqrt(2)], rel=0.02)


def test_only_whole_blocks_count() -> None:
    luma = texture(230, 300)
    assert image_features(luma).shape == (2 * 3, 36)
    assert niqe_of_luma(luma) == niqe_of_luma(luma[:192, :288])


def test_noise_and_blur_are_worse_than_the_texture_between() -> None:
    luma = texture(288, 288)
    noisy = np.clip(luma + 60 * np.random.default_rng(1).standard_normal(luma.shape), 0, 255).round()
    assert niqe_of_luma(noisy) > niqe_of_luma(luma)


@pytest.mark.parametrize("size", [96, 128, 191])
def test_a_single_block_has_a_finite_score(size: int) -> None:
    assert 0 < niqe_of_luma(texture(size, size)) < 1000


def test_flat_blocks_are_left_out_and_a_flat_picture_has_no_score() -> None:
    half_flat = texture(192, 288)
    half_flat[:, 192:] = 255
    assert np.isfinite(niqe_of_luma(half_flat))
    assert np.isnan(niqe_of_luma(np.full((192, 192), 128.0)))


def test_the_score_looks_at_the_rounded_luma_of_the_prediction_only() -> None:
    grey = torch.from_numpy(texture(192, 192)).float().expand(2, 3, -1, -1) / 255
    scores = niqe(grey)
    assert scores.shape == (2,)
    assert scores[0].item() == niqe_of_luma(texture(192, 192))
    metric = NIQE()
    metric.update(grey, torch.zeros_like(grey))
    assert metric.compute().item() == pytest.approx(scores[0].item(), rel=1e-6)
    assert metric.higher_is_better is False


def test_pictures_under_a_block_are_refused() -> None:
    with pytest.raises(UserError, match="NIQE needs images of at least 96 x 96 px, got 128 x 95"):
        niqe(torch.zeros(1, 3, 95, 128))
