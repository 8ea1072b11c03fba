"""Stable Diffusion 2.1's size with random weights: seconds and memory of a training step, milliseconds of restoring. No download.

The numbers of an untrained network are arbitrary, its time and memory are not. LPIPS is left out: its trunk is a download.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from osediff_exp.losses.mse import MSELoss
from osediff_exp.methods.base import Parts
from osediff_exp.methods.osediff import OSEDiff
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.empty_backbone import empty_backbone
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.runtime import peak_memory_gib
from osediff_exp.tasks.benchmark.steps import OurStep, StepInputs, random_inputs
from osediff_exp.tasks.train import Figures

RESTORED_BATCHES = (1, 8)
_MATMUL_SIDE = 8192


def random_backbone(architecture: str, *, device: str, dtype: torch.dtype, seed: int) -> Backbone:
    """Return a backbone of this architecture with random weights on ``device``; its text encoder has none and must not be asked."""
    backbone = empty_backbone(architecture)
    generator = torch.Generator(device).manual_seed(seed)
    for network in (backbone.vae, backbone.unet):
        network.to(dtype).to_empty(device=device)
        _fill(network, generator)
    return backbone


@torch.no_grad()
def _fill(network: nn.Module, generator: torch.Generator) -> None:
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            bound = parameter[0].numel() ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)


def real_size(config: DictConfig) -> Figures:
    """Measure every batch size with and without checkpointing, then restoring; a case that does not fit into memory is null.

    The keys are ``real_bBATCH_checkpointed_step_seconds`` and the like; on a CPU the peak is the process's so far, so only the first
    case's means something.
    """
    settings, gpu = config.benchmark.real_size, torch.cuda.is_available()
    device = "cuda" if gpu else "cpu"
    figures: Figures = {"real_size_px": settings.size, "real_device": device}
    dtype = torch.bfloat16 if gpu else torch.float32  # a CPU without bf16 instructions emulates it, ten times slower
    backbone = random_backbone(settings.architecture, device=device, dtype=dtype, seed=config.seed)
    for batch in settings.batch_sizes:
        for checkpointed in settings.checkpointing:
            name = f"real_b{batch}_{'checkpointed' if checkpointed else 'plain'}"
            figures |= _step(config, backbone, batch, checkpointed=checkpointed, device=device, name=name)
    if gpu:
        figures |= {"real_bf16_matmul_tflops": matmul_tflops(device)} | _restoring(config, backbone, device)
    return figures


def _method(config: DictConfig, backbone: Backbone, *, checkpointed: bool, device: str) -> OSEDiff:
    generator = OneStepGenerator(backbone=backbone, timestep=999, gradient_checkpointing=checkpointed)
    vsd = instantiate(config.loss.terms.vsd, weight=1.0, rank=4, alpha="fixed", gradient_checkpointing=checkpointed)
    vsd.attach(backbone)
    terms = {"mse": MSELoss(weight=1.0), "vsd": vsd}
    method = OSEDiff(Parts(backbone=backbone, generator=generator, terms=terms), optimizer=instantiate(config.optimizer)).to(device)
    if checkpointed:
        method.train()  # diffusers checkpoints in training mode only
    return method


def _step(config: DictConfig, backbone: Backbone, batch: int, *, checkpointed: bool, device: str, name: str) -> Figures:
    gpu = device == "cuda"
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        method = _method(config, backbone, checkpointed=checkpointed, device=device)
        step = OurStep(method, backbone, clip_norm=1.0, embed=_embed(backbone, device), precision=_precision(device))
        inputs = _inputs(config, batch, device)
        counter = FlopCounterMode(display=False)
        with counter:
            step(inputs, 0)
        seconds = [_seconds(partial(step, inputs, k)) for k in range(1, 1 + config.benchmark.real_size.num_steps)]
    except torch.OutOfMemoryError:
        return {f"{name}_step_seconds": None, f"{name}_peak_gib": None}
    median = statistics.median(seconds)
    return {
        f"{name}_step_seconds": median,
        f"{name}_images_per_second": batch / median,
        f"{name}_tflop": counter.get_total_flops() / 1e12,
        f"{name}_tflops": counter.get_total_flops() / 1e12 / median,
        f"{name}_peak_gib": peak_memory_gib(device),
    }


def _inputs(config: DictConfig, batch: int, device: str) -> StepInputs:
    return random_inputs(batch, config.benchmark.real_size.size, seed=config.seed, device=device)


def _embed(backbone: Backbone, device: str) -> Callable[[list[str]], Tensor]:
    """Return what gives every prompt the same random features (L, D): the text encoder has no weights."""
    config, dtype = backbone.text_encoder.config, next(backbone.unet.parameters()).dtype
    shape = (config.max_position_embeddings, config.hidden_size)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    return lambda prompts: features.expand(len(prompts), *shape)


def _precision(device: str) -> Callable[[], AbstractContextManager[Any]]:
    return (lambda: torch.autocast("cuda", dtype=torch.bfloat16)) if device == "cuda" else nullcontext


def _seconds(work: Callable[[], object]) -> float:
    """Return the clock's seconds, what was asked of a GPU waited for."""
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def matmul_tflops(device: str) -> float:
    """Return the rate of a large bf16 matrix product: what the device reaches at best."""
    a = torch.randn(_MATMUL_SIDE, _MATMUL_SIDE, device=device, dtype=torch.bfloat16)
    a @ a
    return 2 * _MATMUL_SIDE**3 / statistics.median(_seconds(lambda: a @ a) for _ in range(20)) / 1e12


def _restoring(config: DictConfig, backbone: Backbone, device: str) -> Figures:
    """Return the milliseconds of restoring a batch, as it is and compiled with CUDA graphs."""
    generator = OneStepGenerator(backbone=backbone, timestep=999).to(device).eval()
    embed = _embed(backbone, device)
    figures: Figures = {}
    for batch in RESTORED_BATCHES:
        lq = _inputs(config, batch, device).lq
        for way, call in _ways(generator, compiled=config.benchmark.real_size.compile):
            with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16):
                for _ in range(3):
                    call(lq, embed(["prompt"] * batch))
                seconds = [_seconds(partial(call, lq, embed(["prompt"] * batch))) for _ in range(10)]
            figures[f"real_restore_b{batch}_{way}_ms"] = 1e3 * statistics.median(seconds)
    return figures


def _ways(generator: OneStepGenerator, *, compiled: bool) -> Iterator[tuple[str, Callable[..., Any]]]:
    yield "eager", generator
    if compiled:
        yield "compiled", torch.compile(generator, mode="reduce-overhead")
