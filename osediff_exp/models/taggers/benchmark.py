"""How fast is a tagger on this machine?"""

from __future__ import annotations

import time

import torch
from torch import Tensor

from osediff_exp.models.taggers.base import Tagger


def benchmark_tagger(tagger: Tagger, picture: Tensor, *, count: int, batch_size: int = 4) -> float:
    """Return how many pictures a second are tagged, after one untimed batch.

    Args:
        tagger: the tagger itself, not its cache.
        picture: (3, H, W) in [0, 1], tagged again and again where it is.
        count: pictures that are timed, rounded up to whole batches.
        batch_size: pictures that are tagged together.
    """
    pictures = picture.expand(batch_size, -1, -1, -1)
    batches = -(-count // batch_size)
    tagger(pictures, 10)
    started = _now(picture)
    for _ in range(batches):
        tagger(pictures, 10)
    return batches * batch_size / (_now(picture) - started)


def _now(picture: Tensor) -> float:
    if picture.is_cuda:
        torch.cuda.synchronize(picture.device)
    return time.perf_counter()
