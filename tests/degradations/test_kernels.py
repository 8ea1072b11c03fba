"""Blur kernels: sums, symmetry, closed forms, and filtering against torch's convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from osediff_exp.degradations.kernels import BlurKernels, SincKernels, blur, generalized_gaussian, mahalanobis, plateau, sinc
from osediff_exp.errors import UserError

from . import reference

SIZES = (7, 9, 11, 13, 15, 17, 19, 21)


def covariance(kernel: np.ndarray) -> np.ndarray:
    x = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    xx, yy, xy = ((kernel * m).sum() for m in (x[None, :] ** 2, x[:, None] ** 2, x[None, :] * x[:, None]))
    return np.array([[xx, xy], [xy, yy]])


def test_gaussian_covariance_is_the_one_asked_for() -> None:
    theta, sx, sy = 0.7, 3.0, 1.5
    turn = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
    expected = turn @ np.diag([sx**2, sy**2]) @ turn.T
    np.testing.assert_allclose(covariance(generalized_gaussian(mahalanobis(61, sx, sy, theta), 1.0)), expected, atol=1e-6)
    np.testing.assert_allclose(covariance(generalized_gaussian(mahalanobis(61, 2.0, 2.0, 0.0), 1.0)), 4.0 * np.eye(2), atol=1e-9)


def test_shapes_agree_with_their_formulas_at_the_centre() -> None:
    distance = mahalanobis(21, 2.0, 1.0, 0.3)
    flat = plateau(distance, 1.5)
    np.testing.assert_allclose(flat[10, 10] / flat, 1.0 + distance**1.5)
    bell = generalized_gaussian(distance, 2.5)
    np.testing.assert_allclose(np.log(bell[10, 10] / bell[8:13, 8:13]), 0.5 * distance[8:13, 8:13] ** 2.5, rtol=1e-9)


@pytest.mark.parametrize("omega", [np.pi / 4, np.pi / 2])
def test_sinc_passes_below_and_stops_above_its_cutoff(omega: float) -> None:
    kernel = sinc(101, omega)
    x = np.arange(101) - 50
    response = [abs((kernel * np.cos(w * x)[None, :]).sum()) for w in (0.0, 0.5 * omega, 1.5 * omega)]
    np.testing.assert_allclose(response, [1.0, 1.0, 0.0], atol=0.05)
    np.testing.assert_allclose(sinc(21, omega), reference.sinc_kernel(21, omega), atol=1e-12)


def _osediff_kernels(**changes: object) -> BlurKernels:
    families = {"iso": 0.45, "aniso": 0.25, "generalized_iso": 0.12, "generalized_aniso": 0.03, "plateau_iso": 0.12, "plateau_aniso": 0.03}
    sinc_kernels = SincKernels(sizes=SIZES, cutoff=1 / 3, wide_cutoff=0.2, wide_from=13)
    settings = {"sizes": SIZES, "families": families, "sigma": (0.2, 3.0), "beta_generalized": (0.5, 4.0), "beta_plateau": (1.0, 2.0)}
    return BlurKernels(**(settings | {"sinc_probability": 0.1, "sinc": sinc_kernels} | changes))  # type: ignore[arg-type]


def test_random_kernels_sum_to_one_and_are_centrally_symmetric() -> None:
    rng, kernels = np.random.default_rng(0), _osediff_kernels()
    for _ in range(200):
        kernel = kernels.draw(rng)
        assert kernel.sum() == pytest.approx(1.0, abs=1e-12)
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-15)


def test_sizes_families_and_sinc_follow_their_probabilities() -> None:
    rng, n = np.random.default_rng(1), 2000
    drawn = [_osediff_kernels().draw(rng) for _ in range(n)]
    counts = np.bincount([k.shape[0] for k in drawn], minlength=22)[list(SIZES)]
    assert np.all(np.abs(counts - n / 8) < 4.5 * np.sqrt(n / 8 * 7 / 8))
    # A wide sinc kernel is the only one with negative values.
    negative = sum(bool((k < -1e-9).any()) for k in drawn)
    assert abs(negative - 0.1 * n) < 4.5 * np.sqrt(n * 0.1 * 0.9)
    isotropic = sum(bool(np.allclose(k, k.T, atol=1e-12)) for k in drawn)
    share = 0.1 + 0.9 * (0.45 + 0.12 + 0.12)
    assert abs(isotropic - share * n) < 4.5 * np.sqrt(n * share * (1 - share))


def test_the_random_shape_lies_on_each_side_of_one_half_of_the_time() -> None:
    rng, n = np.random.default_rng(2), 2000
    kernels = _osediff_kernels(sizes=(9,), families={"generalized_iso": 1.0}, sigma=(1.0, 1.0), sinc_probability=0.0)
    drawn = [kernels.draw(rng) for _ in range(n)]
    betas = np.log2([2 * np.log(k[4, 4] / k[3, 3]) for k in drawn])  # the distance of that pixel is 2
    assert betas.min() > 0.5 - 1e-9
    assert betas.max() < 4 + 1e-9
    assert abs((betas < 1).sum() - n / 2) < 4.5 * np.sqrt(n / 4)
    assert betas[betas > 1].mean() == pytest.approx(2.5, abs=4.5 * 3 / np.sqrt(12 * n / 2))


@pytest.mark.parametrize("size", [7, 11, 13, 21])
@pytest.mark.parametrize("family", ["iso", "aniso", "plateau_aniso"])
def test_blur_is_torchs_reflected_correlation(crop: np.ndarray, size: int, family: str) -> None:
    kernel = _osediff_kernels(sizes=(size,), families={family: 1.0}, sinc_probability=0.0).draw(np.random.default_rng(size))
    expected = reference.filter2d(torch.from_numpy(crop).permute(2, 0, 1)[None], kernel)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(blur(crop, kernel), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"sizes": (8,)}, "blur.sizes"),
        ({"sigma": (3.0, 0.2)}, "blur.sigma"),
        ({"sigma": 3.0}, "blur.sigma=3.0 is not a range"),
        ({"beta_plateau": (1.5, 2.0)}, "blur.beta_plateau"),
        ({"families": {"izo": 1.0}}, "Did you mean 'iso'"),
        ({"families": {"iso": 0.6}}, "sum to 0.6"),
        ({"sinc_probability": 1.5}, "blur.sinc_probability"),
        ({"sinc": None}, "blur.sinc"),
    ],
)
def test_mistakes_are_named_in_one_line(changes: dict[str, object], names: str) -> None:
    with pytest.raises(UserError) as error:
        _osediff_kernels(**changes)
    assert names in str(error.value)
    assert "\n" not in str(error.value)
