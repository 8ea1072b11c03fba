"""The metrics against the per-image scores that OSEDiff's authors published with their RealSR outputs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osediff_exp.metrics.niqe import niqe
from osediff_exp.metrics.psnr_y import psnr_y
from osediff_exp.metrics.ssim_y import ssim_y

REALSR = Path(__file__).parents[2].parent / "shared" / "data" / "realsr"
NUM_IMAGES = 8

pytestmark = pytest.mark.skipif(not REALSR.is_dir(), reason="needs the authors' RealSR outputs in ../shared/data/realsr")


def load(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def ours_and_theirs() -> tuple[np.ndarray, np.ndarray]:
    """Return PSNR, SSIM and NIQE of the first images, ours and the log's, each (NUM_IMAGES, 3)."""
    log = (REALSR / "results_osediff_metrics.log").read_text()
    outputs, targets = (sorted((REALSR / folder).iterdir())[:NUM_IMAGES] for folder in ("results_osediff", "test_HR"))
    ours, theirs = [], []
    for output, target in zip(outputs, targets, strict=True):
        pred, truth = load(output), load(target)
        ours.append([psnr_y(pred, truth).item(), ssim_y(pred, truth).item(), niqe(pred).item()])
        found = re.search(rf"{re.escape(output.name)} \| PSNR: ([\d.]+); SSIM: ([\d.]+);.*?NIQE: ([\d.]+)", log)
        assert found is not None
        theirs.append([float(figure) for figure in found.groups()])
    return np.array(ours), np.array(theirs)


@pytest.mark.parametrize(("column", "each", "average"), [(0, 1e-4, 1e-5), (1, 1e-5, 2e-6), (2, 0.1, 0.02)], ids=["psnr", "ssim", "niqe"])
def test_the_published_scores_are_reproduced(
    ours_and_theirs: tuple[np.ndarray, np.ndarray], column: int, each: float, average: float
) -> None:
    ours, theirs = (scores[:, column] for scores in ours_and_theirs)
    assert np.abs(ours - theirs).max() < each
    assert abs(ours.mean() - theirs.mean()) < average
