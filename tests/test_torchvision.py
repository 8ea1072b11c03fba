"""The shim that makes a torchvision built for CUDA importable beside a CPU-only torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from osediff_exp._torchvision import _extension_loads

if TYPE_CHECKING:
    from pathlib import Path

WATCHERS = "sum(type(finder).__name__ == '_TorchvisionFinder' for finder in sys.meta_path)"


def run_fresh(code: str) -> str:
    """Return what ``code`` prints in a process of its own; only torch's own warnings are let through."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_neither_torch_nor_torchvision() -> None:
    assert run_fresh("import sys, osediff_exp; print('torch' in sys.modules, 'torchvision' in sys.modules)") == "False False"


def test_the_watcher_is_installed_once() -> None:
    code = f"import sys, osediff_exp; osediff_exp.install_finder(); osediff_exp.install_finder(); print({WATCHERS})"
    assert run_fresh(code) == "1"


needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None or find_spec("lpips") is None, reason="needs torchvision and lpips")


@pytest.mark.slow
@needs_torchvision
def test_torchvision_and_lpips_import_after_the_package() -> None:
    code = f"import sys, osediff_exp, lpips, torchvision, torch; print(hasattr(torch.ops.torchvision, 'nms'), {WATCHERS})"
    assert run_fresh(code) == "True 0"


@pytest.mark.slow
@needs_torchvision
def test_everything_that_wants_torchvision_imports_after_the_package() -> None:
    code = (
        "import osediff_exp, torchmetrics.image, pytorch_lightning, peft\n"
        "from diffusers import AutoencoderKL\n"
        "from transformers import CLIPTextModel\n"
        "import torchvision; print(torchvision.models.alexnet is not None)"
    )
    assert run_fresh(code) == "True"


@pytest.mark.parametrize("extension", [None, b"not a library"], ids=["none", "unloadable"])
def test_an_extension_that_does_not_load_is_noticed(tmp_path: Path, extension: bytes | None) -> None:
    if extension is not None:
        (tmp_path / "_C.so").write_bytes(extension)
    assert _extension_loads(ModuleSpec("torchvision", None, origin=str(tmp_path / "__init__.py"))) is False
