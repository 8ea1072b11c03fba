"""Make a torchvision built for CUDA importable beside a CPU-only torch.

The registry's torchvision wheel carries an extension that needs CUDA's libtorch. Beside a CPU build of torch the extension does not
load and ``import torchvision`` then fails, because fake kernels are registered for operators that do not exist; lpips, transformers and
torchmetrics fail with it. Defining the two operators first makes torchvision's Python part work. Nothing is imported until somebody
imports torchvision, so this costs nothing at start-up.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_keep_alive: list[object] = []


def _extension_loads(spec: ModuleSpec) -> bool:
    import torch

    extensions = sorted(Path(spec.origin or "").parent.glob("_C*"))
    try:
        for extension in extensions:
            torch.ops.load_library(extension)
    except OSError:
        return False
    return bool(extensions)


class _TorchvisionFinder(MetaPathFinder):
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "torchvision":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name)
        if spec is not None and not _extension_loads(spec):
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(operator + _SCHEMA)
            _keep_alive.append(library)
        return spec


def install_finder() -> None:
    """Watch for the first import of torchvision (once per process)."""
    if "torchvision" not in sys.modules and not any(isinstance(finder, _TorchvisionFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TorchvisionFinder())
