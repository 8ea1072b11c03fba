"""The set-level metrics rank what is known: HQ, the authors' outputs, bicubic; more blur, noise and compression are worse."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from osediff_exp.metrics.fd import FD
from osediff_exp.metrics.kid import KID
from osediff_exp.metrics.niqe_set import NIQESet
from osediff_exp.metrics.set_metric import SetMetric

PHOTOS = Path(__file__).parents[2] / "osediff_exp" / "data" / "photos" / "val"
REALSR = Path(__file__).parents[2].parent / "shared" / "data" / "realsr"
METRICS: list[type[SetMetric]] = [KID, FD, NIQESet]


def opened(path: Path, side: int = 192) -> Image.Image:
    """Return the middle of a picture."""
    with Image.open(path) as image:
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return image.convert("RGB").crop((left, top, left + side, top + side))


def tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def blurred(image: Image.Image, sigma: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def noisy(image: Image.Image, sigma: float) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, sigma, (image.height, image.width, 3))
    return Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))


def compressed(image: Image.Image, quality: float) -> Image.Image:
    image.save(buffer := io.BytesIO(), "JPEG", quality=int(quality))
    return Image.open(buffer).convert("RGB")


@pytest.fixture(scope="module")
def originals() -> list[Image.Image]:
    return [opened(path) for path in sorted(PHOTOS.iterdir())[::2]]


def scored(metric: SetMetric, outputs: list[Image.Image], originals: list[Image.Image]) -> float:
    metric.reset()
    for output, original in zip(outputs, originals, strict=True):
        metric.update(tensor(output), tensor(original))
    return metric.compute().item()


@pytest.mark.parametrize("build", METRICS[:2])
@pytest.mark.parametrize(
    ("change", "strengths"), [(blurred, (0.5, 1, 2)), (noisy, (4, 8, 16)), (compressed, (90, 70, 40))], ids=["blur", "noise", "jpeg"]
)
def test_more_of_a_degradation_is_worse(
    originals: list[Image.Image], build: type[SetMetric], change: Callable[[Image.Image, float], Image.Image], strengths: tuple[float, ...]
) -> None:
    metric = build()
    scores = [scored(metric, [change(image, strength) for image in originals], originals) for strength in strengths]
    assert scores == sorted(scores)
    assert scores[0] > 0


@pytest.mark.skipif(not REALSR.is_dir(), reason="needs the authors' RealSR outputs in ../shared/data/realsr")
@pytest.mark.parametrize("build", METRICS)
def test_the_authors_outputs_come_before_bicubic_by_many_standard_errors(build: type[SetMetric]) -> None:
    names = [path.name for path in sorted((REALSR / "test_HR").iterdir())][::8]
    truth, authors = ([opened(REALSR / folder / name) for name in names] for folder in ("test_HR", "results_osediff"))
    bicubic = [opened(REALSR / "test_LR" / name, 48).resize((192, 192), Image.Resampling.BICUBIC) for name in names]
    metric, contributions = build(), []
    for outputs in (authors, bicubic):
        scored(metric, outputs, truth)
        assert metric.contributions is not None
        contributions.append(metric.contributions)
    step = contributions[1] - contributions[0]
    assert step.mean() > 3 * step.std() / len(names) ** 0.5
