"""``trainer.precision=auto``: the fastest precision that this machine computes in by instructions of its own."""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.cpu_kernels import suit_cpu
from osediff_exp.models.lean_layers import lean_layers
from osediff_exp.runtime import has_bf16_instructions

AUTO, SINGLE, MIXED = "auto", "32-true", "bf16-mixed"
CPU_PRECISIONS = (AUTO, SINGLE, MIXED)
ROUNDS = 3
WORTH = 1.1  # bf16 must be so many times faster: below that its rounding is not worth it
log = logging.getLogger(__name__)


def with_precision(config: DictConfig, backbone: Backbone) -> DictConfig:
    """Return the configuration with ``trainer.precision`` in place of ``auto``; what it says otherwise stays.

    bf16-mixed on a GPU that has bf16. On a CPU with bf16 instructions the decoder's passes are measured both ways, in a single process
    only: ranks must not differ. Everywhere else 32-true, because a CPU without them emulates bf16 ten times slower.
    """
    if config.trainer.precision != AUTO:
        return config
    chosen = _chosen(config, backbone)
    log.info("trainer.precision=auto: %s", chosen)
    resolved = OmegaConf.merge(config, {"trainer": {"precision": chosen}})
    assert isinstance(resolved, DictConfig)
    return resolved


def autocast(config: DictConfig) -> Callable[[], AbstractContextManager[Any]]:
    """Return what forward passes run in on a CPU, by ``trainer.precision``; UserError for one that a CPU does not have."""
    precision = config.trainer.precision
    if precision == MIXED:
        return lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    if precision not in CPU_PRECISIONS:
        raise UserError(f"trainer.precision={precision} is not for a CPU: use {SINGLE}, {MIXED} or {AUTO}")
    return nullcontext


def suit_networks(trainer: pl.Trainer, *networks: nn.Module) -> None:
    """Let ``networks`` keep less for the backward pass, and where ``trainer`` computes in bf16 on a CPU, make them fast there."""
    lean_layers(*networks)
    if trainer.precision == MIXED and trainer.strategy.root_device.type == "cpu":
        suit_cpu(*networks)


def _chosen(config: DictConfig, backbone: Backbone) -> str:
    trainer = config.trainer
    if trainer.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return MIXED if torch.cuda.is_bf16_supported() else SINGLE
    alone = trainer.devices == trainer.num_nodes == 1
    if trainer.accelerator not in ("cpu", "auto") or not alone or not has_bf16_instructions():
        return SINGLE
    single, mixed = decoder_seconds(backbone, batch=trainer.batch_size, side=config.data.crop_size)
    return MIXED if single > WORTH * mixed else SINGLE


def decoder_seconds(backbone: Backbone, *, batch: int, side: int) -> tuple[float, float]:
    """Return the median seconds of D's forward and backward pass on ``batch`` crops of ``side`` px, in float32 and under bf16 autocast.

    Each is measured as a training would have it (:func:`suit_networks`).
    """
    networks = {False: copy.deepcopy(backbone.vae), True: copy.deepcopy(backbone.vae)}
    lean_layers(*networks.values())
    suit_cpu(networks[True])
    factor = backbone.vae_factor
    shape = (batch, backbone.vae.config.latent_channels, side // factor, side // factor)
    z = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(next(backbone.vae.parameters())).requires_grad_()

    def seconds(*, mixed: bool) -> float:
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16) if mixed else nullcontext():
            image = networks[mixed].decode(z).sample
        torch.autograd.grad(image.float().square().mean(), z)
        return time.perf_counter() - started

    rounds = [(seconds(mixed=False), seconds(mixed=True)) for _ in range(1 + ROUNDS)]
    single, mixed = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
    return single, mixed
