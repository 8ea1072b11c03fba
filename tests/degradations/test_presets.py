"""The presets: their figures, the contract of a degradation, and what each recipe promises."""

from __future__ import annotations

import numpy as np
import pytest
from hydra.errors import InstantiationException
from scipy.stats import ks_2samp

from osediff_exp.degradations.benchmark import benchmark_degradation
from osediff_exp.degradations.bicubic import BicubicDegradation, bicubic
from osediff_exp.degradations.real_esrgan import RealESRGANDegradation, Stage
from osediff_exp.errors import UserError
from osediff_exp.randomness import numpy_generator

from . import reference
from .conftest import build

PRESETS = ("osediff", "light", "mixed", "face", "bicubic")


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [(128, 128), (64, 100), (512, 512)])
def test_contract(photos: list[np.ndarray], name: str, size: tuple[int, int]) -> None:
    degradation, hq = build(name), np.ascontiguousarray(photos[0][: size[0], : size[1]])
    before = hq.copy()
    for key in range(12 if size[0] < 512 else 2):
        pair = degradation(hq, numpy_generator(7, key))
        assert pair.lq.shape == hq.shape
        assert pair.lr.shape == (size[0] // degradation.scale, size[1] // degradation.scale, 3)
        for image in (pair.lr, pair.lq):
            assert image.dtype == np.float32
            assert image.min() >= 0.0
            assert image.max() <= 1.0
            np.testing.assert_array_equal(image, np.rint(image * 255).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(hq, before)


@pytest.mark.parametrize("name", PRESETS)
def test_a_pair_is_a_function_of_its_generator(crop: np.ndarray, name: str) -> None:
    degradation, again = build(name), build(name)
    for key in range(5):
        first = degradation(crop, numpy_generator(1, key))
        np.random.seed(key)
        second = again(crop, numpy_generator(1, key))
        np.testing.assert_array_equal(first.lr, second.lr)
        np.testing.assert_array_equal(first.lq, second.lq)
    if name != "bicubic":
        assert not np.array_equal(degradation(crop, numpy_generator(1, 0)).lq, degradation(crop, numpy_generator(1, 1)).lq)


def _figures(stage: Stage) -> dict[str, object]:
    sinc = stage.blur.sinc
    assert sinc is not None
    return {
        "blur": stage.blur_probability,
        "sizes": stage.blur.sizes,
        "families": tuple(stage.blur.families.values()),
        "sinc": (stage.blur.sinc_probability, sinc.sizes, sinc.cutoff * 3, sinc.wide_cutoff * 5, sinc.wide_from),
        "sigma": stage.blur.sigma,
        "betas": (stage.blur.beta_generalized, stage.blur.beta_plateau),
        "resize": (tuple(stage.resize.directions.values()), stage.resize.factor),
        "noise": (stage.noise.gaussian_probability, stage.noise.gaussian_sigma, stage.noise.poisson_scale, stage.noise.gray_probability),
        "jpeg": stage.jpeg_quality,
    }


SIZES = (7, 9, 11, 13, 15, 17, 19, 21)
COMMON = {
    "sizes": SIZES,
    "families": (0.45, 0.25, 0.12, 0.03, 0.12, 0.03),
    "sinc": (0.1, SIZES, 1.0, 1.0, 13),
    "betas": ((0.5, 4.0), (1.0, 2.0)),
}
FIRST = COMMON | {
    "blur": 1.0,
    "sigma": (0.2, 3.0),
    "resize": ((0.2, 0.7, 0.1), (0.15, 1.5)),
    "noise": (0.5, (1.0, 30.0), (0.05, 3.0), 0.4),
    "jpeg": (30.0, 95.0),
}
SECOND = COMMON | {
    "blur": 0.8,
    "sigma": (0.2, 1.5),
    "resize": ((0.3, 0.4, 0.3), (0.3, 1.2)),
    "noise": (0.5, (1.0, 25.0), (0.05, 2.5), 0.4),
    "jpeg": (30.0, 95.0),
}


def test_osediff_holds_the_recipes_figures() -> None:
    degradation = build("osediff")
    assert isinstance(degradation, RealESRGANDegradation)
    assert _figures(degradation.first) == FIRST
    assert _figures(degradation.second) == SECOND
    final = degradation.final_sinc
    assert (degradation.scale, degradation.final_sinc_probability, degradation.jpeg_last_probability) == (4, 0.8, 0.5)
    assert (final.sizes, final.cutoff * 3, final.wide_cutoff * 3) == (SIZES, 1.0, 1.0)


def test_light_differs_from_osediff_only_in_its_lighter_figures() -> None:
    degradation = build("light")
    assert isinstance(degradation, RealESRGANDegradation)
    lighter = {"resize": ((0.2, 0.7, 0.1), (0.3, 1.5)), "noise": (0.5, (1.0, 15.0), (0.05, 2.0), 0.4), "jpeg": (60.0, 95.0)}
    assert _figures(degradation.first) == FIRST | lighter
    lighter = {"resize": ((0.3, 0.4, 0.3), (0.6, 1.2)), "noise": (0.5, (1.0, 12.0), (0.05, 1.0), 0.4), "jpeg": (60.0, 100.0)}
    assert _figures(degradation.second) == SECOND | lighter | {"blur": 0.5}


def test_face_holds_codeformers_figures() -> None:
    face = build("face")
    assert (face.scale, face.downsample, face.noise_sigma, face.jpeg_quality) == (1, (1, 30), (0, 20), (30, 100))  # type: ignore[attr-defined]
    blur = face.blur  # type: ignore[attr-defined]
    assert (blur.sizes, blur.sigma, blur.families["iso"], blur.families["aniso"]) == ((41,), (1, 15), 0.5, 0.5)


def test_bicubic_reduction_keeps_ramps_and_needs_no_randomness() -> None:
    ramp = np.broadcast_to(np.linspace(0.1, 0.9, 64, dtype=np.float32)[None, :, None], (64, 64, 3)).copy()
    small = bicubic(ramp, 16, 16)
    np.testing.assert_allclose(small[8, 3:13], ramp.reshape(64, 16, 4, 3).mean(2)[8, 3:13], atol=1e-5)
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    pair = BicubicDegradation(scale=4)(ramp, rng)
    assert rng.bit_generator.state == state
    assert np.abs(pair.lq - ramp)[8:-8, 8:-8].max() < 2 / 255


def test_lq_of_osediff_enlarges_the_unrounded_low_resolution(crop: np.ndarray) -> None:
    # An "area" enlargement by 4 repeats pixels, so its rounding is lr's own.
    degradation = build("osediff")
    repeats = 0
    for key in range(30):
        pair = degradation(crop, numpy_generator(5, key))
        repeats += np.array_equal(pair.lq, pair.lr.repeat(4, 0).repeat(4, 1))
    assert abs(repeats - 10) < 4.5 * np.sqrt(30 * 2 / 9)


def test_a_crop_that_does_not_divide_is_named() -> None:
    with pytest.raises(UserError, match="130x128 px does not divide by the scale 4"):
        build("bicubic")(np.zeros((128, 130, 3), dtype=np.float32), np.random.default_rng(0))


def test_a_wrong_figure_in_the_config_is_named() -> None:
    with pytest.raises(InstantiationException) as error:
        build("osediff", "degradation.first.jpeg_quality=[95,30]")
    assert isinstance(error.value.__cause__, UserError)
    assert "jpeg_quality=[95.0, 30.0]" in str(error.value.__cause__)


def test_a_mixture_draws_its_parts_by_their_shares(crop: np.ndarray) -> None:
    crop = np.ascontiguousarray(crop[:32, :32])
    mixed, parts = build("mixed"), {name: build(name) for name in ("osediff", "light")}
    drawn = dict.fromkeys(parts, 0)
    for key in range(200):
        rng = numpy_generator(3, key)
        name = "osediff" if rng.random() < 0.3 else "light"
        drawn[name] += 1
        np.testing.assert_array_equal(mixed(crop, numpy_generator(3, key)).lq, parts[name](crop, rng).lq)
    assert abs(drawn["osediff"] - 60) < 4.5 * np.sqrt(200 * 0.3 * 0.7)
    assert build("mixed", "degradation.parts.light.first.noise.gaussian_probability=0") is not None


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("degradation.shares.light=0.5", "the shares add up to 0.8, not to 1"),
        ("~degradation.shares.light", "shares.light is missing: say how often"),
        ("+degradation.shares.lihgt=0", "shares.lihgt is of no part: there are osediff, light. Did you mean 'light'?"),
        ("degradation.shares.light=1.5", "shares.light=1.5"),
        ("degradation.parts.light.scale=2", "parts.light has scale=2, the mixture 4"),
    ],
)
def test_a_mixture_that_does_not_add_up_is_named(override: str, words: str) -> None:
    with pytest.raises(InstantiationException) as error:
        build("mixed", override)
    assert isinstance(error.value.__cause__, UserError)
    assert words in str(error.value.__cause__)


def test_benchmark_reports_milliseconds(crop: np.ndarray) -> None:
    times = benchmark_degradation(BicubicDegradation(scale=4), image=crop, num_pairs=20, seed=0)
    assert 0 < times["median_ms"] <= times["p95_ms"] < 1000
    assert times["mean_ms"] > 0


def _crops(photos: list[np.ndarray], num: int, size: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    crops = []
    for k in range(num):
        photo = photos[k % len(photos)]
        y, x = (int(rng.integers(side - size)) for side in photo.shape[:2])
        crops.append(np.ascontiguousarray(photo[y : y + size, x : x + size]))
    return crops


def _statistics(hq: np.ndarray, lq: np.ndarray) -> tuple[float, ...]:
    luma = lq @ np.array([0.299, 0.587, 0.114])
    laplacian = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    gradient = (np.diff(luma, axis=0) ** 2).mean() + (np.diff(luma, axis=1) ** 2).mean()
    colour = np.abs((lq - hq).mean((0, 1))).max()
    return -10 * np.log10(((lq - hq) ** 2).mean()), np.log(laplacian.var()), np.log(gradient), np.log(colour)


def test_statistics_are_those_of_the_torch_reference(photos: list[np.ndarray]) -> None:
    crops, degradation = _crops(photos, 60, 96, seed=0), build("osediff")
    fast = np.array([_statistics(hq, degradation(hq, numpy_generator(3, k)).lq) for k, hq in enumerate(crops * 3)])
    slow = np.array([_statistics(hq, reference.degrade(hq, numpy_generator(4, k))) for k, hq in enumerate(crops)])
    p_values = [ks_2samp(fast[:, c], slow[:, c]).pvalue for c in range(fast.shape[1])]
    assert min(p_values) > 0.005, p_values
