"""Latents encoded once: for a small U-Net the frozen encoder and the degradation cost as much as the training step itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.utils.data import Dataset

from osediff_exp.data.pairs import TrainingPairs
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import fingerprint_of
from osediff_exp.models.prompt_cache.fingerprints import digest
from osediff_exp.randomness import numpy_generator
from osediff_exp.whole_files import whole_file


class CachedLatents(Dataset[dict[str, Any]]):
    """Random windows of latents in a folder that :func:`cache_latents` filled; sample i is a pure function of (seed, i).

    Args:
        folder: holds ``latents.npy``, float16 (N, C, H, W), scaled, and ``latents.json`` (name and ``degraded`` of each).
        size: side of a window in latent pixels.
        seed: of the stream.
    """

    def __init__(self, *, folder: Path, size: int, seed: int) -> None:
        self.latents = np.load(folder / "latents.npy", mmap_mode="r")
        self.entries = json.loads((folder / "latents.json").read_text())["entries"]
        self.size, self.seed = size, seed

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Return ``latent`` float32 (C, size, size), ``degraded``, ``index`` and ``name`` of sample i >= 0."""
        rng = numpy_generator(self.seed, "latent", i)
        k = int(rng.integers(len(self.entries)))
        top, left = (int(rng.integers(side - self.size + 1)) for side in self.latents.shape[2:])
        window = self.latents[k, :, top : top + self.size, left : left + self.size].astype(np.float32)
        return {"latent": torch.from_numpy(window), "index": i} | self.entries[k]


@torch.no_grad()
def cache_latents(
    folder: Path,
    *,
    pairs: TrainingPairs,
    vae: AutoencoderKL,
    count: int,
    degraded_fraction: float,
    degradation: Mapping[str, Any],
    on_encoded: Callable[[int], None] = lambda number: None,
) -> None:
    """Encode the first ``count`` samples of ``pairs`` (posterior's mode, scaled) into ``folder``, each sharp or degraded.

    An interrupted call goes on where it stopped. A folder that another VAE, other photos, another degradation (``degradation``: its
    settings, as plain data) or other settings filled is refused. ``on_encoded`` is told how many more there are: first those of before,
    then each.

    Raises:
        UserError: the folder was filled with something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "VAE": fingerprint_of(vae),
        "scaling_factor": float(vae.config.scaling_factor),
        "degraded_fraction": degraded_fraction,
        "degradation": dict(degradation),
        "count": count,
        **_described(pairs),
    }
    record, path = folder / "latents.json", folder / "latents.npy"
    before = json.loads(record.read_text()) if record.is_file() else None
    if before is not None and (other := _differences(before["identity"], identity)):
        raise UserError(f"{folder} holds latents made otherwise ({', '.join(other)}): name another folder, or remove it")
    entries = before["entries"] if before else []
    latents = None if not entries else np.load(path, mmap_mode="r+")
    on_encoded(len(entries))
    for k in range(len(entries), count):
        sample = pairs[k]
        degraded = bool(numpy_generator(pairs.seed, "degraded", k).random() < degraded_fraction)
        image = 2 * sample["lq" if degraded else "hq"][None] - 1
        latent = (vae.encode(image).latent_dist.mode()[0] * vae.config.scaling_factor).numpy()
        if latents is None:
            latents = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(count, *latent.shape))
        latents[k] = latent
        entries.append({"name": sample["name"], "degraded": degraded})
        if len(entries) % 100 == 0 or len(entries) == count:
            latents.flush()
            _write(record, {"identity": identity, "entries": entries})
        on_encoded(1)


def _described(pairs: TrainingPairs) -> dict[str, Any]:
    """Return what decides a stream's pictures beside the degradation; a photo is known by its path, size and time of last change."""
    photos = [digest(*(f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths)) for paths in pairs.lists]
    weights = [float(share) for share in pairs.cumulative]
    return {"photos": photos, "weights": weights, "reduce_to": pairs.load.reduce_to, "seed": pairs.seed, "crop_size": pairs.crop_size}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the entries that differ; those of an older program's record are called otherwise, and all are named."""
    return [name for name in now if name not in before or before[name] != now[name]]


def _write(path: Path, content: dict[str, Any]) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content))
