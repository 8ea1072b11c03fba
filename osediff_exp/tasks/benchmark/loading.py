"""The training stream: samples a second by number of loader processes, and how many cores feed a GPU."""

from __future__ import annotations

import time
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from osediff_exp.tasks.train import Figures, build_data

WORKERS = (0, 1, 2)


def data_rate(config: DictConfig, run_dir: Path, *, num_batches: int, num_workers: int | None = None) -> float:
    """Return the samples per second of the configured training stream, decoding included, from the moment the first batch is there."""
    data = build_data(config, run_dir)
    data.num_workers = data.num_workers if num_workers is None else num_workers
    data.setup("fit")
    batches = iter(data.train_dataloader())
    next(batches)
    started = time.perf_counter()
    samples = sum(len(next(batches)["index"]) for _ in range(num_batches))
    return samples / (time.perf_counter() - started)


def core_seconds_per_sample(config: DictConfig, run_dir: Path, *, num_samples: int, cached: bool) -> float:
    """Return the processor seconds of one sample in this process: photo decoded (``cached``: kept in memory), cropped, degraded."""
    fresh = OmegaConf.merge(config, {"data": {"cache_images": cached}})
    assert isinstance(fresh, DictConfig)
    data = build_data(fresh, run_dir)
    data.setup("fit")
    assert data.train_pairs is not None
    for index in range(num_samples):  # the photos of these samples are in memory then
        data.train_pairs[index]
    started = time.process_time()
    for index in range(num_samples):
        data.train_pairs[index]
    return (time.process_time() - started) / num_samples


def loading(config: DictConfig, run_dir: Path) -> Figures:
    """Return ``data_samples_per_second`` as configured and by workers, and the processor milliseconds of a
    sample: its photo decoded each time, and its photo kept in memory (``data.cache_images``)."""
    count = config.benchmark.num_batches
    figures: Figures = {"data_samples_per_second": data_rate(config, run_dir, num_batches=count)}
    for workers in WORKERS:
        figures[f"data_samples_per_second_{workers}_workers"] = data_rate(config, run_dir, num_batches=count, num_workers=workers)
    decoded, cached = (1e3 * core_seconds_per_sample(config, run_dir, num_samples=count, cached=cached) for cached in (False, True))
    return figures | {"data_core_ms_per_sample": decoded, "data_cached_core_ms_per_sample": cached, "data_speedup": decoded / cached}
