"""The training stream: samples a second by number of loader processes, and how many cores feed a GPU."""

from __future__ import annotations

import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.utils.data import DataLoader

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


def core_seconds_per_sample(config: DictConfig, run_dir: Path, *, num_samples: int, num_workers: int = 0, **cache: Any) -> float:
    """Return the processor seconds of one sample, loader processes' included: photo loaded, cropped, degraded.

    Args:
        num_workers: loader processes; their start belongs to what they take.
        cache: keys of ``data`` that say where decoded photos are kept. It is filled before the measurement.
    """
    nowhere = {"cache_images": False, "cache_dir": None}
    fresh = OmegaConf.merge(config, {"data": nowhere | cache})
    assert isinstance(fresh, DictConfig)
    data = build_data(fresh, run_dir)
    data.setup("fit")
    pairs = data.train_pairs
    assert pairs is not None
    for index in range(num_samples):
        pairs.load(pairs.path_of(index))
    samples = DataLoader(pairs, sampler=range(num_samples), batch_size=data.batch_size, num_workers=num_workers)
    before = _processor_seconds()
    for _ in samples:
        pass
    return (_processor_seconds() - before) / num_samples


def _processor_seconds() -> float:
    """Return what this process has taken so far, with its children that have ended, to the microsecond (``os.times`` counts hundredths)."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def loading(config: DictConfig, run_dir: Path) -> Figures:
    """Return ``data_samples_per_second`` as configured and by workers, and the processor milliseconds of a sample: its photo decoded each
    time, kept in memory (``data.cache_images``) and on disk (``data.cache_dir``; by workers too)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # more processes than cores: that is what is measured
        return _loading(config, run_dir, count=config.benchmark.num_batches)


def _loading(config: DictConfig, run_dir: Path, *, count: int) -> Figures:
    figures: Figures = {"data_samples_per_second": data_rate(config, run_dir, num_batches=count)}
    for workers in WORKERS:
        figures[f"data_samples_per_second_{workers}_workers"] = data_rate(config, run_dir, num_batches=count, num_workers=workers)

    def milliseconds(workers: int = 0, **cache: Any) -> float:
        return 1e3 * core_seconds_per_sample(config, run_dir, num_samples=count, num_workers=workers, **cache)

    with tempfile.TemporaryDirectory(dir=run_dir) as folder:
        for workers in WORKERS:
            name = f"core_ms_per_sample_{workers}_workers" if workers else "core_ms_per_sample"
            figures[f"data_{name}"] = milliseconds(workers)
            figures[f"data_disk_{name}"] = milliseconds(workers, cache_dir=folder)
    cached = milliseconds(cache_images=True)
    decoded, disk = (figures[f"data_{where}core_ms_per_sample"] for where in ("", "disk_"))
    ratios = {"data_speedup": decoded / cached, "data_disk_speedup": decoded / disk}  # type: ignore[operator]
    return figures | {"data_cached_core_ms_per_sample": cached} | ratios
