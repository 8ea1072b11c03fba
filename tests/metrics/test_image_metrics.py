"""PSNR, SSIM and what all image metrics share, against closed forms and an independent implementation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from skimage.metrics import structural_similarity
from torch import nn

from osediff_exp.errors import UserError
from osediff_exp.evaluation.scoring import Scorer
from osediff_exp.metrics.base import ImageMetric
from osediff_exp.metrics.color import luma_full_range, luma_video_range
from osediff_exp.metrics.niqe import NIQE
from osediff_exp.metrics.psnr_y import PSNRY, psnr_y
from osediff_exp.metrics.ssim_y import SSIMY, ssim_y
from osediff_exp.metrics.st_lpips import STLPIPS
from osediff_exp.module import scores as scores_module
from osediff_exp.module.scores import ValidationScores, with_figure

CONF = Path(__file__).parents[2] / "conf" / "metrics"


def random_pair(batch: int = 3, size: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(batch, 3, size, size, generator=generator)
    return (target + 0.2 * torch.randn(target.shape, generator=generator)).clamp(0, 1), target


def test_luma_of_black_white_and_primaries() -> None:
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]).float()[:, :, None, None]
    video = luma_video_range(colours).flatten() * 255
    assert video.tolist() == pytest.approx([16, 235, 81.481, 144.553, 40.966])
    assert luma_full_range(colours).flatten().tolist() == [0, 255, 76, 150, 29]


@pytest.mark.parametrize("step", [0.01, 0.1, 0.5])
def test_psnr_of_a_constant_grey_offset(step: float) -> None:
    target = torch.full((1, 3, 8, 8), 0.25)
    expected = -10 * math.log10((step * 219 / 255) ** 2 + 1e-8)
    assert psnr_y(target + step, target).item() == pytest.approx(expected, abs=1e-4)


def test_psnr_is_not_rounded_to_8_bit() -> None:
    target = torch.full((1, 3, 8, 8), 0.5)
    assert psnr_y(target + 1e-3, target).item() == pytest.approx(-20 * math.log10(1e-3 * 219 / 255), abs=0.1)


def test_identical_images() -> None:
    _, target = random_pair()
    assert psnr_y(target, target).tolist() == pytest.approx([80.0] * 3)
    assert ssim_y(target, target).tolist() == pytest.approx([1.0] * 3)


def test_ssim_of_two_flat_images_is_its_luminance_term() -> None:
    x, y = 120.0, 180.0  # luma levels, exactly on the 8-bit grid
    pred, target = (torch.full((1, 3, 16, 16), (level - 16) / 219) for level in (x, y))
    c1 = (0.01 * 255) ** 2
    assert ssim_y(pred, target).item() == pytest.approx((2 * x * y + c1) / (x * x + y * y + c1), abs=1e-9)


def test_ssim_agrees_with_scikit_image_where_no_structure_is_negative() -> None:
    pred, target = random_pair()
    pred = 0.7 * target + 0.3 * pred
    luma = [(luma_video_range(image) * 255).round()[:, 0].numpy() for image in (pred, target)]
    for k, score in enumerate(ssim_y(pred, target)):
        _, full = structural_similarity(
            luma[0][k], luma[1][k], data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        assert full[5:-5, 5:-5].min() > 0
        assert score.item() == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-9)


def test_ssim_counts_opposite_structure_as_zero() -> None:
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2
    target = board.float().expand(1, 3, 32, 32)
    assert 0 <= ssim_y(1 - target, target).item() < 1e-2


def test_ssim_names_the_smallest_size() -> None:
    with pytest.raises(UserError, match="SSIM needs images of at least 11 x 11 px, got 16 x 10"):
        ssim_y(torch.zeros(1, 3, 10, 16), torch.zeros(1, 3, 10, 16))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 1, 16, 16), (2, 3, 16, 16)])
def test_shapes_are_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected two"):
        psnr_y(torch.zeros(shape), torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("build", [PSNRY, SSIMY])
def test_unequal_shares_of_two_ranks_give_the_mean_over_images(build: type[ImageMetric]) -> None:
    pred, target = random_pair(batch=5)
    first, second = build(), build()
    first.update(pred[:4], target[:4])
    second.update(pred[4:], target[4:])
    first.merge_state(second)  # what the reduction over ranks does
    assert first.count == 5
    assert first.compute().item() == pytest.approx(build().per_image(pred, target).mean().item(), rel=1e-6)


def test_reset_forgets() -> None:
    pred, target = random_pair()
    metric = PSNRY()
    metric.update(pred, target)
    metric.reset()
    metric.update(target, target)
    assert metric.compute().item() == pytest.approx(80.0)


@pytest.mark.parametrize(
    ("file", "better"),
    [
        ("psnr_ssim", {"psnr": True, "ssim": True}),
        (
            "offline",
            {"psnr": True, "ssim": True, "niqe": False, "st_lpips": False, "sharpness": None}
            | {"kid": False, "fd": False, "niqe_set": False},
        ),
    ],
)
def test_the_configured_metrics_rank_a_copy_above_noise(file: str, better: dict[str, bool | None]) -> None:
    metrics = instantiate(OmegaConf.load(CONF / f"{file}.yaml"))
    assert {name: metric.higher_is_better for name, metric in metrics.items()} == better
    _, target = random_pair(batch=1, size=96)
    for name, metric in metrics.items():
        if isinstance(metric, ImageMetric) and name not in (
            "niqe",
            "sharpness",
        ):  # the rest do not compare with the target, or not by picture
            copy, noise = metric.per_image(target, target).item(), metric.per_image(1 - target, target).item()
            assert (copy > noise) == better[name]


def test_a_picture_without_a_finite_score_is_left_out_of_the_mean_in_a_training_as_in_an_evaluation() -> None:
    pred, target = random_pair(size=96)
    pred[1] = 0.5  # flat: it has no NIQE
    validation, scorer, names = ValidationScores({"niqe": NIQE()}), Scorer({"niqe": NIQE()}), ["a", "flat", "c"]
    validation.start()
    validation.add(names, pred, target, target)
    for name, *pair in zip(names, pred, target, strict=True):
        scorer.add(name, *pair)
    figures = validation.finish(world_size=1)
    assert figures["niqe"] == pytest.approx(scorer.averages()["niqe"], rel=1e-6)
    assert [row["name"] for row in validation.rows if math.isnan(row["niqe"])] == ["flat"]
    assert with_figure(validation.rows) == {"niqe": 2}
    assert with_figure(validation.rows[:2]) == {}
    assert math.isnan(_mean_of_nothing())


def _mean_of_nothing() -> float:
    metric = NIQE()
    metric.update(torch.full((1, 3, 96, 96), 0.5), torch.zeros(1, 3, 96, 96))
    return metric.compute().item()


def test_metrics_stay_where_float64_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Apple's GPUs, whose part another device that is always there plays."""
    module = nn.ModuleDict({"net": nn.Linear(2, 2), "scores": ValidationScores({"psnr": PSNRY(), "st_lpips": STLPIPS()})})
    monkeypatch.setattr(scores_module, "WITHOUT_FLOAT64", ("meta",))
    module.to("meta")
    assert module["net"].weight.is_meta
    scores = module["scores"]
    assert not any(tensor.is_meta for tensor in (*scores.parameters(), *scores.buffers()))
    scores.start()
    pictures = torch.rand(2, 3, 40, 40)
    scores.add(["a", "b"], pictures, pictures.roll(1, -1), pictures.roll(2, -1))
    assert set(scores.finish(world_size=1)) == {"psnr", "st_lpips", "bicubic_psnr", "bicubic_st_lpips"}
    monkeypatch.setattr(scores_module, "WITHOUT_FLOAT64", ())
    assert all(parameter.is_meta for parameter in module.to("meta").parameters())
