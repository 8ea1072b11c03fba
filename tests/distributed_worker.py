"""Run by tests/test_distributed.py: train on any number of CPU processes, leave the weights and figures in a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import osediff_exp  # noqa: F401 - first: see tests/conftest.py

# isort: split
import torch
from tiny_parts import TERM_SETTINGS, make_data, make_module, make_term, make_trainer, trainable
from torch import Tensor

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.ema import GeneratorEMA
from osediff_exp.callbacks.validation_records import ValidationRecords
from osediff_exp.losses.base import CriticTerm, LossInputs, LossTerm, TermOutput
from osediff_exp.losses.mse import MSELoss
from osediff_exp.metrics.fid import FID
from osediff_exp.metrics.kid import KID
from osediff_exp.metrics.psnr_y import PSNRY
from osediff_exp.models.backbone import Backbone, load_backbone


def every_critic(backbone: Backbone) -> dict[str, LossTerm]:
    """Return every term with networks of its own, by its class's name."""
    return {kind.__name__: make_term(kind, backbone) for kind in TERM_SETTINGS if issubclass(kind, CriticTerm)}


class BadOn(LossTerm):
    """A loss of 0 that is not a number on one rank at the second step."""

    def __init__(self, rank: int) -> None:
        super().__init__(weight=1.0)
        self.rank = rank

    def forward(self, inputs: LossInputs) -> TermOutput:
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        return TermOutput((inputs.output * (float("nan") if inputs.step == 1 and rank == self.rank else 0.0)).sum(), {})


def mean_colours(images: Tensor) -> Tensor:
    """Stand in for FID's network: three features of a picture."""
    return images.mean(dim=(2, 3))


def train(
    backbone_folder: Path,
    folder: Path,
    *,
    photos: Path,
    num_val: int,
    devices: int,
    batch_size: int,
    accumulate: int,
    critic_updates: int = 1,
    all_critics: bool = False,
    max_steps: int = 3,
    resume: str | None = None,
    bad_rank: int | None = None,
) -> None:
    """Train ``max_steps`` steps with EMA and write ``folder/trained.pt``: tensors, the average, latest figures, per-image scores.

    The terms are MSE and VSD, or with ``all_critics`` MSE and every term that has networks of its own. With ``bad_rank``, the loss of
    that rank alone is not a number at the second step.
    """
    backbone = load_backbone(sources=[str(backbone_folder)])
    terms = {"mse": MSELoss(weight=1.0), **every_critic(backbone)} if all_critics else None
    if bad_rank is not None:
        terms = {"mse": MSELoss(weight=1.0), "bad": BadOn(bad_rank)}
    metrics = {"psnr": PSNRY(), "fid": FID(features=mean_colours), "kid": KID(features=lambda images: list(mean_colours(images)[:, None]))}
    module = make_module(backbone, terms=terms, metrics=metrics, max_steps=max_steps, accumulate=accumulate, critic_updates=critic_updates)
    trainer = make_trainer(
        folder,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        callbacks=[LastCheckpoint(every=3), ValidationRecords(num_pictures=2, wandb_pictures=0), ema := GeneratorEMA(decay=0.9)],
    )
    data = make_data(photos, batch_size=batch_size, accumulate=accumulate * critic_updates, num_val=num_val)
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    if trainer.is_global_zero:
        found = {"weights": trainable(module), "latest": module.latest, "per_image": module.per_image, "average": ema.average}
        torch.save(found | {"skipped": module.bad_steps.skipped}, folder / "trained.pt")


if __name__ == "__main__":
    settings = json.loads(sys.argv[3])
    train(Path(sys.argv[1]), Path(sys.argv[2]), photos=Path(settings.pop("photos")), **settings)
