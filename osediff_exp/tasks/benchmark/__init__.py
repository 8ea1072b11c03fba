"""task=benchmark: data, training step, restoring, scoring and start-up on this machine, each beside a plain way of doing the same.

Only a ratio of two things measured in turns says something on a machine that others use too; the limit set for it stands beside it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from osediff_exp.data.images import load_rgb, to_float
from osediff_exp.data.pairs import to_tensor
from osediff_exp.data.sample_photos import SampleSource
from osediff_exp.degradations.base import Image
from osediff_exp.degradations.benchmark import benchmark_degradation
from osediff_exp.errors import UserError
from osediff_exp.metrics.niqe import NIQE
from osediff_exp.metrics.psnr_y import PSNRY
from osediff_exp.metrics.ssim_y import SSIMY
from osediff_exp.models.prompts import TaggedPrompt
from osediff_exp.models.taggers.benchmark import benchmark_tagger
from osediff_exp.models.taggers.cached import CachedTagger
from osediff_exp.restoration.numerics import choose_device
from osediff_exp.restoration.progress import FileProgress
from osediff_exp.runtime import has_bf16_instructions, machine, peak_memory_gib, prepare_process, quiet_libraries
from osediff_exp.tasks.benchmark.limits import ratio_table
from osediff_exp.tasks.benchmark.loading import loading
from osediff_exp.tasks.benchmark.real_size import real_size
from osediff_exp.tasks.benchmark.restoring import batch_gain, compare_restoring, embedded_restorer, levels_apart, shares
from osediff_exp.tasks.benchmark.scale import scale
from osediff_exp.tasks.benchmark.scoring import compare_scoring
from osediff_exp.tasks.benchmark.side_by_side import Pair
from osediff_exp.tasks.benchmark.starting import starting
from osediff_exp.tasks.benchmark.training import comparable, compare_memory, compare_steps, on_cpu
from osediff_exp.tasks.precision import autocast, with_precision
from osediff_exp.tasks.prompting import build_prompts
from osediff_exp.tasks.resuming import Start
from osediff_exp.tasks.train import Figures, build_data, build_module, build_trainer, micro_batches_per_step

log = logging.getLogger(__name__)

DEGRADATION_TARGET_MS = 60.0  # a pair on one core; the reference implementation needs several times as much
UNTIMED_STEPS = 3  # the first steps allocate memory and choose kernels


def run(config: DictConfig, run_dir: Path) -> Figures:
    """Measure the parts of ``benchmark.parts``, print figures and the table of ratios, and return all of it, flat.

    ``train_step_seconds`` is None where it was not measured. Where a tagger makes the prompts, it is that of a training whose pictures are
    tagged already, and ``train_step_cold_seconds`` that of one that tags them in passing; ``..._prompt_seconds`` is the part of each that
    the step waits for its prompts. ``train_step_speedup``, ``train_step_memory_ratio`` (ours / plain) and ``restore_speedup`` are those of
    the table; ``restore_light_speedup`` is that of ``restorer.decoder=light``, and
    ``restore_bf16_speedup`` and ``restore_bf16_light_speedup`` those of ``restorer.dtype=bfloat16`` without and with it.
    """
    quiet_libraries()
    prepare_process(seed=config.seed)
    settings = config.benchmark
    _check(config)
    figures: Figures = {}
    photo = sample_photo()
    parts = list(dict.fromkeys(settings.parts))
    with FileProgress(total=len(parts), label="measuring", console=Console(stderr=True)) as progress:
        for part in parts:
            progress.start(part)
            figures |= _PARTS[part](config, run_dir, photo)
            progress.advance()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    figures |= {"peak_memory_gib": peak_memory_gib(device), "threads": torch.get_num_threads(), "machine": machine(device)}
    _print(figures)
    return figures


def _check(config: DictConfig) -> None:
    settings = config.benchmark
    if "scale" in settings.parts:
        autocast(on_cpu(config))
    for key in ("num_pairs", "num_batches", "num_images", "num_steps", "num_tagged", "num_rounds"):
        if settings[key] < 1:
            raise UserError(f"benchmark.{key}={settings[key]} measures nothing: give at least 1")


def _degradation(config: DictConfig, run_dir: Path, photo: Image) -> Figures:
    with one_core():
        measured = benchmark_degradation(
            instantiate(config.degradation), image=photo, num_pairs=config.benchmark.num_pairs, seed=config.seed
        )
    return {"degradation_target_ms": DEGRADATION_TARGET_MS, **{f"degradation_{key}": value for key, value in measured.items()}}


def _data(config: DictConfig, run_dir: Path, photo: Image) -> Figures:
    return loading(config, run_dir)


def _scoring(config: DictConfig, run_dir: Path, photo: Image) -> Figures:
    with one_core():
        seconds = metric_seconds(photo, num_images=config.benchmark.num_images)
        pair = compare_scoring(to_tensor(photo)[None], rounds=config.benchmark.num_rounds)
    return {"metrics_seconds_per_image": seconds} | _sides("scoring", pair)


def _step(config: DictConfig, run_dir: Path, photo: Image) -> Figures:
    """Return the speed of the tagger, where there is one, the seconds of a training step, and what stands beside the plain one."""
    figures = _prompts(config, photo, run_dir)
    if figures["train_step_seconds"] is None:
        return figures
    if (reason := comparable(config)) is not None:
        log.warning("no plain training step to compare with: %s", reason)
        return figures
    with one_core():
        figures |= _sides("train_step", compare_steps(config, run_dir))
    if config.benchmark.memory:
        memory = compare_memory(config, run_dir)
        figures |= {f"train_step_{way}_gib": gib for way, gib in memory.items()}
        figures["train_step_memory_ratio"] = memory["ours"] / memory["plain"]
    return figures


def _restoring(config: DictConfig, run_dir: Path, photo: Image) -> Figures:
    plain, restorer, light = embedded_restorer(plain=True), embedded_restorer(), embedded_restorer(decoder="light")
    if plain is None or restorer is None or light is None:
        log.warning("restoring is not measured: this version of the package carries no restorer")
        return {}
    rounds = config.benchmark.num_rounds
    with one_core():
        figures = _sides("restore", compare_restoring(plain, restorer, photo, rounds=rounds))
        figures |= _sides("restore_light", compare_restoring(plain, light, photo, rounds=rounds))
        if has_bf16_instructions():
            for name, decoder, exact in (("restore_bf16", None, restorer), ("restore_bf16_light", "light", light)):
                half = embedded_restorer(decoder=decoder, dtype="bfloat16")
                assert half is not None
                figures |= _sides(name, compare_restoring(plain, half, photo, rounds=rounds))
                figures[f"{name}_levels_apart"] = levels_apart(exact, half, photo)
        return figures | {"restore_batch_gain": batch_gain(restorer, photo)} | shares(restorer, photo)


def _startup(config: DictConfig, run_dir: Path, photo: Image) -> Figures:
    seconds = starting()
    return {**seconds, "startup_speedup": seconds["startup_libraries_seconds"] / seconds["startup_help_seconds"]}


def _real_size(config: DictConfig, run_dir: Path, photo: Image) -> Figures:
    return real_size(config)


def _scale(config: DictConfig, run_dir: Path, photo: Image) -> Figures:
    return scale(config, run_dir)


def _sides(name: str, pair: Pair) -> Figures:
    """Return the figures of two ways; ``..._compute_seconds`` are processor seconds on a CPU and the clock's on a GPU."""
    return {f"{name}_plain_compute_seconds": pair.plain, f"{name}_compute_seconds": pair.ours, f"{name}_speedup": pair.ratio}


_PARTS: dict[str, Callable[[DictConfig, Path, Image], Figures]] = {
    "degradation": _degradation,
    "data": _data,
    "scoring": _scoring,
    "step": _step,
    "restoring": _restoring,
    "startup": _startup,
    "real_size": _real_size,
    "scale": _scale,
}


def sample_photo() -> Image:
    """Return the picture that is measured on: four embedded photos side by side, (512, 512, 3) float32 in [0, 1]."""
    photos = [to_float(load_rgb(picture.path)) for picture in SampleSource(split="val").pictures()[:4]]
    return np.concatenate([np.concatenate(photos[:2], axis=1), np.concatenate(photos[2:], axis=1)])


@contextmanager
def one_core() -> Iterator[None]:
    """Let torch, OpenCV and BLAS use one thread each."""
    torch_threads, cv2_threads = torch.get_num_threads(), cv2.getNumThreads()
    with threadpool_limits(1):
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        try:
            yield
        finally:
            torch.set_num_threads(torch_threads)
            cv2.setNumThreads(cv2_threads)


def metric_seconds(photo: Image, *, num_images: int) -> float:
    """Return the median seconds for PSNR-Y, SSIM-Y and NIQE of one picture (H, W, 3) against a noisy copy, after one untimed picture."""
    target = to_tensor(photo)[None]
    pred = (target + 0.02 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    metrics = [PSNRY(), SSIMY(), NIQE()]
    seconds = []
    for _ in range(1 + num_images):
        started = time.perf_counter()
        for metric in metrics:
            metric.update(pred, target)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds[1:]))


class StepClock(pl.Callback):
    """Measures the optimizer steps of ``accumulate`` micro-batches each, from batch to batch; waiting for data is not counted."""

    def __init__(self, *, accumulate: int) -> None:
        self.accumulate = accumulate
        self.durations: list[float] = []
        self._started = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if len(self.durations) == UNTIMED_STEPS * self.accumulate:
            pl_module.prompting.restart()
        self._started = _now()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.durations.append(_now() - self._started)

    @property
    def steps(self) -> list[float]:
        """Seconds of each optimizer step so far."""
        count = len(self.durations) // self.accumulate
        return [sum(self.durations[k * self.accumulate : (k + 1) * self.accumulate]) for k in range(count)]


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _prompts(config: DictConfig, photo: Image, run_dir: Path) -> Figures:
    """Return the speed of the tagger, where there is one, and the seconds of a training step with its tags unknown and known."""
    extractor = build_prompts(config)
    if not isinstance(extractor, TaggedPrompt) or not isinstance(extractor.tagger, CachedTagger):
        return _step_seconds(config, run_dir, "train_step") if config.benchmark.training_step else {"train_step_seconds": None}
    picture = to_tensor(photo).to(choose_device("auto"))
    figures: Figures = {"tagged_images_per_second": benchmark_tagger(extractor.tagger.tagger, picture, count=config.benchmark.num_tagged)}
    if not config.benchmark.training_step:
        return figures | {"train_step_seconds": None}
    with tempfile.TemporaryDirectory(dir=run_dir) as cache:
        fresh = OmegaConf.merge(config, {"prompt": {"cache": cache}})
        assert isinstance(fresh, DictConfig)
        cold = _step_seconds(fresh, run_dir, "train_step_cold")
        return figures | cold | _step_seconds(fresh, run_dir, "train_step")


def _step_seconds(config: DictConfig, run_dir: Path, name: str) -> Figures:
    """Return the median seconds of a training step, and the mean ones of its prompts, by ``name``; None (and say why) where the backbone's
    weights cannot be had."""
    try:
        backbone = instantiate(config.backbone.loader)
    except InstantiationException as error:
        if not isinstance(error.__cause__, UserError):
            raise
        log.warning("the training step is not measured: %s", error.__cause__)
        return {f"{name}_seconds": None}
    short = with_precision(_without_company(config), backbone)
    trainer, clock = build_trainer(short, run_dir, Start()), StepClock(accumulate=micro_batches_per_step(config))
    trainer.callbacks.append(clock)  # type: ignore[attr-defined]
    module = build_module(short, backbone, run_dir)
    trainer.fit(module, datamodule=build_data(short, run_dir))
    prompts = module.prompting.seconds / config.benchmark.num_steps
    return {f"{name}_seconds": float(np.median(clock.steps[UNTIMED_STEPS:])), f"{name}_prompt_seconds": prompts}


def _without_company(config: DictConfig) -> DictConfig:
    """Return the configuration of a short training that neither validates, nor logs to W&B, nor writes checkpoints and pictures."""
    num_steps = UNTIMED_STEPS + config.benchmark.num_steps
    trainer = {"max_steps": num_steps, "validate_every": num_steps + 1, "log_every": num_steps}
    short = OmegaConf.merge(config, {"trainer": trainer, "logger": {"wandb": {"mode": "disabled"}}})
    assert isinstance(short, DictConfig)
    short.callbacks = {}
    return short


def _print(figures: Figures) -> None:
    console = Console()
    table = Table("figure", "value", box=None)
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console.print(table)
    console.print(ratio_table(figures))
