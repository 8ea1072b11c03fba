"""What may be done with code, weights and metrics. Notes, no legal advice."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from osediff_exp.tasks.doctor.check import Check


def licence_code(config: DictConfig, run_dir: Path) -> Check:
    """This package and the weights inside it."""
    card = "osediff_exp/models/weights/tiny/README.md"
    return Check("licence_code", "note", f"this package: Apache-2.0; its embedded weights: free photos, some of them share-alike ({card})")


def licence_sd21(config: DictConfig, run_dir: Path) -> Check:
    """Stable Diffusion 2.1 (its model card)."""
    bound = "its restrictions on use go with what is derived from it, such as LoRA trained on it"
    return Check("licence_sd21", "note", f"Stable Diffusion 2.1: CreativeML Open RAIL++-M; {bound}")


def licence_pyiqa(config: DictConfig, run_dir: Path) -> Check:
    """Optional packages of metrics and restorers (their packages' metadata)."""
    spandrel = "spandrel: MIT, but every model that it loads has its own licence (realesrgan: BSD-3-Clause)"
    return Check("licence_pyiqa", "note", f"pyiqa 0.1.16: PolyForm Noncommercial 1.0.0, no commercial use; {spandrel}")


def licence_ram(config: DictConfig, run_dir: Path) -> Check:
    """The tagger of the released code (its repository's LICENSE)."""
    return Check("licence_ram", "note", "RAM, the image tagger of the released code: Apache-2.0; it is not part of this package")
