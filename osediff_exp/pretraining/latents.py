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
    """Random windows of latents in a folder that a :class:`LatentCache` filled; sample i is a pure function of (seed, i).

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


class LatentCache:
    """The first ``count`` samples of a training stream, encoded, in a folder: ``latents.npy`` and ``latents.json``.

    Args:
        folder: where they are kept.
        pairs: the stream, with crops as large as they are to be encoded.
        vae: encodes them, where it is: the posterior's mode, scaled.
        count: how many.
        degraded_fraction: share of samples that are degraded crops.
        degradation: the settings of the stream's degradation, as plain data.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pairs: TrainingPairs,
        vae: AutoencoderKL,
        count: int,
        degraded_fraction: float,
        degradation: Mapping[str, Any],
    ) -> None:
        self.pairs, self.vae, self.count, self.degraded_fraction = pairs, vae, count, degraded_fraction
        self.record, self.path = folder / "latents.json", folder / "latents.npy"
        self.identity = {
            "VAE": fingerprint_of(vae),
            "scaling_factor": float(vae.config.scaling_factor),
            "degraded_fraction": degraded_fraction,
            "degradation": dict(degradation),
            "count": count,
            **_described(pairs),
        }

    def entries(self) -> list[dict[str, Any]]:
        """Return the name and ``degraded`` of every sample in the folder.

        Raises:
            UserError: another VAE, other photos, another degradation or other settings have filled it.
        """
        before = json.loads(self.record.read_text()) if self.record.is_file() else None
        if before is not None and (other := _differences(before["identity"], self.identity)):
            raise UserError(f"{self.record.parent} holds latents made otherwise ({', '.join(other)}): name another folder, or remove it")
        return before["entries"] if before else []

    def is_whole(self) -> bool:
        """Tell whether all samples are there."""
        return len(self.entries()) == self.count

    @torch.no_grad()
    def fill(self, on_encoded: Callable[[int], None] = lambda number: None) -> None:
        """Encode what is missing: a call that was interrupted goes on where it stopped.

        ``on_encoded`` is told how many more there are: first those of before, then each.

        Raises:
            UserError: see :meth:`entries`.
        """
        entries = self.entries()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        latents = np.load(self.path, mmap_mode="r+") if 0 < len(entries) < self.count else None
        on_encoded(len(entries))
        for k in range(len(entries), self.count):
            sample = self.pairs[k]
            degraded = bool(numpy_generator(self.pairs.seed, "degraded", k).random() < self.degraded_fraction)
            image = (2 * sample["lq" if degraded else "hq"][None] - 1).to(self.vae.device)
            latent = (self.vae.encode(image).latent_dist.mode()[0] * self.vae.config.scaling_factor).cpu().numpy()
            if latents is None:
                latents = np.lib.format.open_memmap(self.path, mode="w+", dtype=np.float16, shape=(self.count, *latent.shape))
            latents[k] = latent
            entries.append({"name": sample["name"], "degraded": degraded})
            if len(entries) % 100 == 0 or len(entries) == self.count:
                latents.flush()
                _write(self.record, {"identity": self.identity, "entries": entries})
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
