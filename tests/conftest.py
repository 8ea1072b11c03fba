"""The package comes first: it makes a CUDA-built torchvision importable beside a CPU torch (see osediff_exp/_torchvision.py)."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is there: workers whose threads outnumber the cores wait for one another

import osediff_exp  # noqa: F401
from osediff_exp.cli.resolvers import register_resolvers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from osediff_exp.models.backbone import Backbone

register_resolvers()  # for tests that compose by Hydra itself, whatever ran before them


ROOT = Path(__file__).parents[1]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported stays: looking through it for garbage again and again takes a seventh of the tests' time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(scope="session", autouse=True)
def _option_files_are_read_once() -> None:
    """Also where a test lets Hydra compose without the command line's help."""
    from osediff_exp.cli.option_files import remember_option_files  # not above: the process that hands out the tests needs no Hydra

    remember_option_files()


def _strange_files() -> set[str]:
    """Return what lies in the checkout and belongs neither to it nor to what git ignores."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        return set()
    command = ["git", "-C", str(ROOT), "ls-files", "--others", "--exclude-standard"]
    return set(subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines())


@pytest.fixture(scope="session", autouse=True)
def _no_file_is_left_in_the_checkout() -> Iterator[None]:
    """Tests write into folders of their own."""
    before = _strange_files()
    yield
    assert _strange_files() <= before, f"tests left files in the checkout: {sorted(_strange_files() - before)}"


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
