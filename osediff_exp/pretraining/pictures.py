"""Save what a pretraining module shows of itself as picture grids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor

from osediff_exp.whole_files import whole_file


def picture_grid(rows: list[Tensor]) -> Image.Image:
    """Return one picture whose rows are the given (N, 3, H, W) tensors in [0, 1]."""
    lines = [torch.cat(list(row.clamp(0, 1).float().cpu()), dim=2) for row in rows]
    array = torch.cat(lines, dim=1).mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array)


class PretrainingPictures(pl.Callback):
    """After each validation save ``module.pictures(batch)`` of the first validation batch as ``folder/step_000100.png``."""

    def __init__(self, *, folder: Path, num_pictures: int = 8) -> None:
        self.folder = folder
        self.num_pictures = num_pictures

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        loader = trainer.val_dataloaders
        if trainer.sanity_checking or loader is None:
            return
        batch = pl_module.transfer_batch_to_device(next(iter(loader)), pl_module.device, 0)
        batch = {key: value[: self.num_pictures] for key, value in batch.items()}
        rows = pl_module.pictures(batch)
        with whole_file(self.folder / f"step_{trainer.global_step:06d}.png") as temporary:
            picture_grid(list(rows.values())).save(temporary, format="PNG")
