"""KID, FD and set-level NIQE: closed forms, no bias, contributions that add up, true standard errors, features of a picture alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.metrics.fd import FD, frechet_of_gaussians, frechet_of_pictures
from osediff_exp.metrics.fid import FID, frechet_distance
from osediff_exp.metrics.kid import KID, squared_mmd
from osediff_exp.metrics.moments import Moments
from osediff_exp.metrics.niqe import image_features, niqe_of_luma
from osediff_exp.metrics.niqe_set import NIQESet, distance_to_pristine
from osediff_exp.metrics.set_metric import SetMetric, SetScore
from osediff_exp.models.patch_features import PATCH, cut_patches, patch_features
from osediff_exp.module.scores import ValidationScores

Estimate = Callable[[list[Tensor], list[Tensor]], SetScore]


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(count: int, seed: int, *, shift: float = 0.0, patches: int = 4) -> list[Tensor]:
    """Pictures of patches with 3 features, N(shift, 1), patches of a picture correlated by one half."""
    noise = generator(seed)
    common = torch.randn(count, 1, 3, generator=noise, dtype=torch.float64)
    own = torch.randn(count, patches, 3, generator=noise, dtype=torch.float64)
    return list(shift + (common + own) / 2**0.5)


def images(count: int, side: int = 192, seed: int = 0) -> Tensor:
    """Smooth random pictures with a little noise, on the 8-bit grid."""
    coarse = torch.rand(count, 3, side // 8, side // 8, generator=generator(seed))
    smooth = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic")
    return (smooth + 0.05 * torch.randn(smooth.shape, generator=generator(seed + 1))).clamp(0, 1).mul(255).round().div(255)


# ---- the estimates


@pytest.mark.parametrize("estimate", [squared_mmd, frechet_of_pictures])
def test_equal_distributions_are_at_distance_zero_on_average(estimate: Estimate) -> None:
    found = torch.stack([estimate(pictures(12, 2 * k), pictures(12, 2 * k + 1)).value for k in range(100)])
    error = found.std() / 100**0.5
    # the jackknife leaves a bias of order 1 / N^2; the plain Frechet distance of such sets is .52
    assert abs(found.mean()) < (3 * error if estimate is squared_mmd else 0.05)


def test_mmd_is_the_u_statistic_over_pairs_of_pictures() -> None:
    x, y = pictures(5, 0), pictures(5, 1, shift=0.3)

    def k(a: Tensor, b: Tensor) -> float:
        return float(((a @ b.T / 3 + 1) ** 3).mean())

    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    expected = sum(k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(x[j], y[i]) for i, j in pairs) / len(pairs)
    assert squared_mmd(x, y).value.item() == pytest.approx(expected)


def test_mmd_of_two_points_is_that_of_their_kernel() -> None:
    x, y = torch.tensor([[1.0, 0.0]]).double(), torch.tensor([[0.0, 1.0]]).double()
    # k(x, x) = (1/2 + 1)^3, k(x, y) = 1: MMD^2 of two point masses is 2 (3.375 - 1)
    assert squared_mmd([x] * 4, [y] * 4).value.item() == pytest.approx(4.75)
    assert squared_mmd([x] * 2, [y] * 2).contributions is None
    assert squared_mmd([x], [y]).value.isnan()


def test_frechet_distance_of_two_gaussians_in_closed_form() -> None:
    mean_x, mean_y = torch.zeros(3).double(), torch.tensor([1.0, 2.0, 2.0]).double()
    c_x, c_y = torch.diag(torch.tensor([1.0, 4.0, 0.0])).double(), torch.diag(torch.tensor([9.0, 1.0, 4.0])).double()
    # diagonal covariances: |m|^2 + sum of (s_x - s_y)^2
    assert frechet_of_gaussians(mean_x, c_x, mean_y, c_y).item() == pytest.approx(9 + 4 + 1 + 4)
    rows = [torch.cat(pictures(40, seed, shift=seed)) for seed in (0, 1)]
    gaussians = [Moments.of_each([part]).total().gaussian() for part in rows]
    assert frechet_of_gaussians(*gaussians[0], *gaussians[1]).item() == pytest.approx(frechet_distance(*rows).item())


def test_moments_without_each_are_those_of_the_others() -> None:
    parts = pictures(4, 3)
    mean, covariance = Moments.of_each(parts).without_each().gaussian()
    others = torch.cat(parts[1:])
    torch.testing.assert_close(mean[0], others.mean(dim=0))
    torch.testing.assert_close(covariance[0], torch.cov(others.T))


@pytest.mark.parametrize("estimate", [pytest.param(squared_mmd, marks=pytest.mark.slow), frechet_of_pictures])
def test_contributions_have_the_value_as_mean_and_their_error_is_the_true_one(estimate: Estimate) -> None:
    def sample(seed: int) -> SetScore:
        y = pictures(30, seed)
        return estimate([rows * 1.3 + 0.4 for rows in y], y)

    scores = [sample(seed) for seed in range(100)]
    contributions = [score.contributions for score in scores if score.contributions is not None]
    assert len(contributions) == 100
    assert contributions[0].mean() == pytest.approx(scores[0].value.item())
    said = torch.stack([part.var() / 30 for part in contributions]).mean().sqrt()
    true = torch.stack([score.value for score in scores]).std()
    assert said.item() == pytest.approx(true.item(), rel=0.2)


@pytest.mark.parametrize("estimate", [squared_mmd, frechet_of_pictures])
def test_the_order_of_pictures_and_patches_does_not_matter(estimate: Estimate) -> None:
    x, y = pictures(6, 0), pictures(6, 1, shift=0.5)
    order = [3, 1, 5, 0, 2, 4]
    one, other = estimate(x, y), estimate([x[k].flip(0) for k in order], [y[k] for k in order])
    assert one.value.item() == pytest.approx(other.value.item())
    assert one.contributions is not None
    assert other.contributions is not None
    torch.testing.assert_close(one.contributions[order], other.contributions)


# ---- the metrics


@pytest.mark.parametrize("build", [KID, FD, NIQESet])
def test_batches_and_ranks_change_nothing(build: Callable[[], SetMetric]) -> None:
    pred, target = images(4), images(4, seed=5)
    together, alone = build(), build()
    together.update(pred, target)
    for k in range(4):
        alone.keep(alone.describe(pred[k : k + 1], target[k : k + 1]))
    assert together.compute().item() == pytest.approx(alone.compute().item(), rel=1e-6)
    assert together.contributions is not None
    assert alone.contributions is not None
    torch.testing.assert_close(together.contributions, alone.contributions)
    together.reset()
    assert together.contributions is None
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert together.compute().isnan()


@pytest.mark.parametrize("build", [KID, FD])
def test_pictures_that_are_the_originals_score_zero(build: Callable[[], SetMetric]) -> None:
    metric = build()
    metric.update(images(4), images(4))
    assert metric.compute().item() == pytest.approx(0, abs=1e-5)


def test_niqe_of_a_set_of_equal_pictures_is_that_of_one() -> None:
    picture = images(1, side=288)
    luma = (picture[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0).mul(255).double().round().numpy()
    features = torch.from_numpy(image_features(luma))
    assert distance_to_pristine(features.mean(dim=0), torch.cov(features.T)).item() == pytest.approx(niqe_of_luma(luma))
    metric = NIQESet()
    metric.update(picture.expand(3, -1, -1, -1), picture.expand(3, -1, -1, -1))
    assert metric.compute().item() == pytest.approx(niqe_of_luma(luma), rel=0.05), "blocks counted thrice have a smaller covariance"


def test_a_flat_picture_adds_no_block_and_one_block_has_no_covariance() -> None:
    metric = NIQESet()
    assert [len(rows) for rows in metric.describe(torch.full((1, 3, 96, 96), 0.5), torch.zeros(1, 3, 96, 96))] == [0]
    metric.update(images(1, side=96), images(1, side=96))
    assert metric.compute().isnan()
    with pytest.raises(UserError, match="niqe_set needs images of at least 96 x 96 px"):
        metric.update(images(1, side=88), images(1, side=88))


@pytest.mark.parametrize("build", [KID, FD, NIQESet, lambda: FID(features=lambda pixels: pixels.mean(dim=(2, 3)))])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_picture_that_is_not_finite_leaves_the_set_without_a_figure_and_ends_no_training(
    build: Callable[[], SetMetric], value: float
) -> None:
    pred, target = images(4, side=96), images(4, side=96, seed=5)
    pred[2, :, 40:60, 40:60] = value
    scores = ValidationScores({"x": build()})
    scores.start()
    scores.add(list("abcd"), pred, target, target)
    figures = scores.finish(world_size=1)
    assert math.isnan(figures["x"]) or math.isinf(value), "some networks' inputs are clipped, which makes white of an infinite value"
    assert math.isfinite(figures["bicubic_x"]), "its own inputs are finite"


# ---- patches and their features


def test_a_picture_of_256_px_is_cut_whole_and_others_evenly() -> None:
    picture = torch.arange(256 * 256).reshape(1, 256, 256).expand(3, -1, -1)
    assert len(torch.unique(cut_patches(picture)[:, 0])) == 256 * 256
    corners = cut_patches(torch.arange(700 * 150).reshape(1, 700, 150).expand(3, -1, -1))[:, 0, 0, 0]
    assert [(int(corner) // 150, int(corner) % 150) for corner in corners] == [(y, x) for y in (0, 212, 424, 636) for x in (0, 86)]
    assert int(cut_patches(torch.arange(100 * 100).reshape(1, 100, 100).expand(3, -1, -1))[0, 0, 0, 0]) == 18 * 100 + 18
    with pytest.raises(UserError, match="at least 64 x 64 px, got 80 x 63"):
        cut_patches(torch.zeros(3, 63, 80))


def test_features_depend_on_the_picture_alone_and_are_computed_once() -> None:
    network = patch_features()
    batch = images(3, side=2 * PATCH, seed=9)
    together = network(batch)
    assert [rows.shape for rows in together] == [(4, 80)] * 3
    assert network(batch[1:2])[0] is together[1], "remembered"
    assert torch.equal(type(network)()(batch[1:2])[0], together[1]), "and the same where it is computed alone"
    assert copy.deepcopy(KID()).features is KID().features is FD().features is network
    assert not any(parameter.requires_grad for parameter in network.parameters())
