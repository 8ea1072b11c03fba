"""Disk, caches and photos."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from osediff_exp.errors import UserError
from osediff_exp.tasks.doctor.check import Check

GIB = 2**30
LITTLE, TOO_LITTLE = 5 * GIB, GIB // 4
"""Free bytes: a sweep of a few arms on a large backbone, and a single small run."""


def disk(config: DictConfig, run_dir: Path) -> Check:
    """Is there room for runs?"""
    usage = shutil.disk_usage(run_dir)
    detail = f"{usage.free / GIB:.1f} of {usage.total / GIB:.0f} GiB free in {run_dir.parent}"
    remedy = "make room, or write elsewhere: hydra.run.dir=DIR"
    if usage.free >= LITTLE:
        return Check("disk", "ok", detail)
    return Check("disk", "warning" if usage.free >= TOO_LITTLE else "error", detail, remedy)


def caches(config: DictConfig, run_dir: Path) -> Check:
    """Can downloaded weights be kept?"""
    folders = cache_folders()
    closed = [name for name, folder in folders.items() if not is_writable(folder)]
    detail = ", ".join(f"{name}={folder}" for name, folder in folders.items())
    if not closed:
        return Check("caches", "ok", detail)
    listed = " and ".join(f"{name}={folders[name]}" for name in closed)
    return Check("caches", "warning", f"{listed}: not writable", f"export {' '.join(f'{name}=WRITABLE_DIR' for name in closed)}")


def data(config: DictConfig, run_dir: Path) -> Check:
    """Are the pictures of the chosen data there?"""
    try:
        counts = count_pictures(config.data)
    except UserError as error:
        return Check("data", "error", str(error), "give folders that exist, or choose data=sample, which needs none")
    detail = ", ".join(f"{key}: {number} pictures" for key, number in counts.items())
    if counts.keys() == {"train", "val"} and not counts["val"]:
        return Check(
            "data", "warning", detail, "a training without validation gives no figures: data.val_root, or data.val_lr_root and val_hr_root"
        )
    return Check("data", "ok", detail)


def cache_folders() -> dict[str, Path]:
    """Return the folders where the hub's and torch's downloads lie, by the variable that sets each."""
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    hub = Path(os.environ.get("HF_HOME", home / "huggingface"))
    chosen = {"HF_HUB_CACHE": Path(os.environ["HF_HUB_CACHE"])} if "HF_HUB_CACHE" in os.environ else {"HF_HOME": hub}
    return chosen | {"TORCH_HOME": Path(os.environ.get("TORCH_HOME", home / "torch"))}


def is_writable(folder: Path) -> bool:
    """Tell whether files can be put into ``folder``, which need not exist yet."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)


def count_pictures(settings: DictConfig) -> dict[str, int]:
    """Return the number of pictures of every list: of a training set's sources, or of a test set's two folders.

    Raises:
        UserError: a folder is not set, does not exist or holds no picture.
    """
    if "datamodule" not in settings:
        return {key: len(_folder(root, key)) for key, root in _test_folders(settings).items()}
    sources = {kind: [instantiate(node) for node in settings.datamodule.get(kind) or []] for kind in ("train", "val")}
    counts = {kind: sum(len(source.pictures()) for source in found) for kind, found in sources.items()}
    roots = {f"data.{key}": settings.get(key) for key in ("val_lr_root", "val_hr_root") if settings.get(key)}
    return counts | {key: len(_folder(root, key)) for key, root in roots.items()}


def _test_folders(settings: DictConfig) -> dict[str, str | None]:
    """Return LR and HR folder of a test set by the key to set: each its own, or test_LR and test_HR of data.root."""
    root = settings.get("root")
    own = {"data.lr_root": settings.get("lr_root"), "data.hr_root": settings.get("hr_root")}
    if root is None:
        return own if any(own.values()) else {"data.root": None}
    inside = {"data.lr_root": Path(root) / "test_LR", "data.hr_root": Path(root) / "test_HR"}
    return {key: str(own[key] or inside[key]) for key in own}


def _folder(root: str | None, key: str) -> list[Any]:
    from osediff_exp.data.sources import ImageSource

    return ImageSource(root=root, key=key).pictures()
