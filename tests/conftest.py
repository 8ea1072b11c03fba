"""The package comes first: it makes a CUDA-built torchvision importable beside a CPU torch (see osediff_exp/_torchvision.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import osediff_exp  # noqa: F401

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from osediff_exp.models.backbone import Backbone


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tags and text features of tests stay among tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OSEDIFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def backbone_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random backbone in diffusers layout, in half precision."""
    from tiny_parts import random_backbone

    from osediff_exp.models.backbone import save_backbone

    folder = tmp_path_factory.mktemp("backbone")
    save_backbone(random_backbone(folder / "own_tokenizer"), folder / "tiny")
    return folder / "tiny"


@pytest.fixture(scope="session")
def backbone(backbone_folder: Path) -> Backbone:
    """The same, loaded in float32; frozen, so every test may share it."""
    from osediff_exp.models.backbone import load_backbone

    return load_backbone(sources=[str(backbone_folder)])
