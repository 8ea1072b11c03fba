"""Methods on the tiny random backbone, trained as task=train would."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tiny_parts import largest_difference, make_data, make_module, make_trainer, trainable

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.ema import GeneratorEMA
from osediff_exp.methods.base import Method, Parts
from osediff_exp.methods.resshift.generator import ResShiftGenerator
from osediff_exp.methods.resshift.method import ResShift
from osediff_exp.methods.sinsr.generator import SinSRGenerator
from osediff_exp.methods.sinsr.method import SinSR
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Generator
from osediff_exp.module import RestorationModule

ADAM = partial(torch.optim.AdamW, lr=1e-3)
SHORT = {"T": 4, "m": 0.2}


def make_resshift(backbone: Backbone, **settings: Any) -> ResShift:
    torch.manual_seed(1)
    generator = ResShiftGenerator(**{"backbone": backbone, **SHORT} | settings)
    return ResShift(Parts(backbone=backbone, generator=generator), optimizer=ADAM)


def make_sinsr(backbone: Backbone, teacher: Generator | None = None, **settings: Any) -> SinSR:
    teacher = teacher or make_resshift(backbone).generator
    torch.manual_seed(2)
    generator = SinSRGenerator(**{"backbone": backbone, **SHORT} | settings)
    earlier = {"teacher": teacher.requires_grad_(False)}
    return SinSR(Parts(backbone=backbone, generator=generator, earlier=earlier), optimizer=ADAM)


def train(backbone: Backbone, folder: Path, method: Method, *, max_steps: int = 2, **settings: Any) -> RestorationModule:
    """Train from the method's start on the photos in ``folder/photos``."""
    ckpt_path, asked = settings.pop("ckpt_path", None), {key: settings.pop(key) for key in ("prompts",) if key in settings}
    module = make_module(backbone, method=method, max_steps=max_steps, **asked)
    data = make_data(folder / "photos", batch_size=2, num_val=1)
    make_trainer(folder, **settings).fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=False)
    return module


def batch_of(backbone: Backbone, folder: Path, method: Method) -> Any:
    """Return the first micro-batch of a training, as the method sees it."""
    module = make_module(backbone, method=method)
    data = make_data(folder / "photos", batch_size=2)
    data.setup("fit")
    return module._training_batch(next(iter(data.train_dataloader())))


def check_resuming(backbone: Backbone, folder: Path, make: Callable[[Backbone], Method]) -> None:
    """Assert that two steps in one run and in two give the same weights and the same average, and that they train something."""

    def arm(place: Path, max_steps: int, ckpt_path: str | None = None) -> tuple[RestorationModule, GeneratorEMA]:
        ema = GeneratorEMA(decay=0.9)
        callbacks = [LastCheckpoint(every=1), ema]
        return train(backbone, place, make(backbone), max_steps=max_steps, callbacks=callbacks, ckpt_path=ckpt_path), ema

    whole, whole_ema = arm(folder / "whole", 2)
    arm(folder / "parts", 1)
    resumed, resumed_ema = arm(folder / "parts", 2, str(folder / "parts" / "checkpoints" / "last.ckpt"))
    assert largest_difference(trainable(whole), trainable(resumed)) == 0
    assert largest_difference(whole_ema.average, resumed_ema.average) == 0
    assert largest_difference(trainable(whole.method), trainable(make(backbone))) > 1e-4
