"""Fixtures of the degradation tests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

if TYPE_CHECKING:
    from osediff_exp.degradations.base import Degradation

CONF = Path(__file__).parents[2] / "conf"
SKIMAGE_PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def photos() -> list[np.ndarray]:
    """Real photos, (H, W, 3) float32 in [0, 1], as many of scikit-image's as this machine has."""
    import skimage

    files = [Path(skimage.data_dir) / name for name in SKIMAGE_PHOTOS]
    found = [cv2.imread(str(file), cv2.IMREAD_COLOR) for file in files if file.is_file()]
    if not found:
        pytest.skip("scikit-image carries no photos here")
    return [(image[..., ::-1].astype(np.float32) / np.float32(255)) for image in found if image is not None]


@pytest.fixture(scope="session")
def crop(photos: list[np.ndarray]) -> np.ndarray:
    return np.ascontiguousarray(photos[0][60:188, 150:278])


def build(name: str, *overrides: str) -> Degradation:
    """Instantiate a preset of conf/degradation."""
    with initialize_config_dir(str(CONF), version_base=None):
        return instantiate(compose(f"degradation/{name}", overrides=list(overrides)).degradation)
