"""What each validation leaves in the run folder: pictures and per_image.csv; and pictures in W&B."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from osediff_exp.callbacks.wandb_run import log_pictures
from osediff_exp.whole_files import whole_file


class ValidationRecords(pl.Callback):
    """Write ``images/{lq,bicubic,hq,output}/NAME.png``, ``images/steps/000100/NAME.png`` and ``per_image.csv``.

    The first ``num_pictures`` pictures of the fixed validation set are kept at every validation, all of them in ``images/output``.

    Args:
        num_pictures: pictures kept per validation under ``images/steps``.
        wandb_pictures: pictures sent to W&B per validation.
    """

    def __init__(self, *, num_pictures: int, wandb_pictures: int) -> None:
        self.num_pictures, self.wandb_pictures = num_pictures, wandb_pictures
        self._for_wandb: list[tuple[str, Image.Image]] = []
        self._seen = 0

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._for_wandb, self._seen = [], 0

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.sanity_checking:
            return
        folder = Path(trainer.default_root_dir) / "images"
        step = f"{pl_module.steps_taken:06d}"
        for row, name in enumerate(batch["name"]):
            output = to_picture(outputs["output"][row])
            _save(output, folder / "output" / f"{name}.png")
            self._save_inputs(batch, row, name, folder)
            if self._seen * trainer.world_size < self.num_pictures:
                _save(output, folder / "steps" / step / f"{name}.png")
            if self._seen < self.wandb_pictures:
                self._for_wandb.append((name, _side_by_side(batch["lq"][row], outputs["output"][row], batch["hq"][row])))
            self._seen += 1

    @staticmethod
    def _save_inputs(batch: Any, row: int, name: str, folder: Path) -> None:
        if (folder / "hq" / f"{name}.png").is_file():
            return
        for kind, key in (("lq", "lr"), ("bicubic", "lq"), ("hq", "hq")):
            if key in batch:
                _save(to_picture(batch[key][row]), folder / kind / f"{name}.png")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            _write_per_image(Path(trainer.default_root_dir) / "per_image.csv", pl_module.per_image)
            log_pictures(trainer.loggers, self._for_wandb, step=pl_module.steps_taken)


def to_picture(image: Tensor) -> Image.Image:
    """Return an 8-bit picture of an image (3, H, W) in [0, 1]."""
    return Image.fromarray(image.float().cpu().clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def _side_by_side(*images: Tensor) -> Image.Image:
    return to_picture(torch.cat([image.float().cpu() for image in images], dim=2))


def _save(picture: Image.Image, path: Path) -> None:
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG")


def _write_per_image(path: Path, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({key: value if isinstance(value, str) else f"{value:.6g}" for key, value in row.items()} for row in rows)
