"""Random generators that are pure functions of a seed and a key.

Nothing in the project reads a global generator: whoever needs random numbers names the seed, the purpose and the sample (or step), so
resuming, other worker counts or other ranks give the same numbers by construction.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

Key = int | str


def _entropy(seed: int, key: tuple[Key, ...]) -> int:
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (int(seed), *key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def numpy_generator(seed: int, *key: Key) -> np.random.Generator:
    """Return the NumPy generator of (seed, key), e.g. ``numpy_generator(123, "degradation", index)``."""
    return np.random.Generator(np.random.SFC64(_entropy(seed, key)))


def torch_generator(seed: int, *key: Key) -> torch.Generator:
    """Return the CPU torch generator of (seed, key); draw on the CPU so that every device sees the same numbers."""
    import torch

    return torch.Generator().manual_seed(_entropy(seed, key) & (2**63 - 1))


def sample_noise(seed: int, purpose: str, step: int, indices: list[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Return standard normal noise (len(indices), *shape), float32 on the CPU; row k depends on (seed, purpose, step, indices[k])."""
    import torch

    return torch.stack([torch.randn(shape, generator=torch_generator(seed, purpose, step, i)) for i in indices])


def sample_integers(seed: int, purpose: str, step: int, indices: list[int], low: int, high: int) -> torch.Tensor:
    """Return int64 (len(indices),) uniform in [low, high); entry k depends on (seed, purpose, step, indices[k])."""
    import torch

    return torch.stack([torch.randint(low, high, (), generator=torch_generator(seed, purpose, step, i)) for i in indices])


def picture_noise(seed: int, purpose: str, names: list[str], shape: tuple[int, ...]) -> torch.Tensor:
    """Return standard normal noise (len(names), *shape), float32 on the CPU; row k depends on (seed, purpose, names[k])."""
    import torch

    return torch.stack([torch.randn(shape, generator=torch_generator(seed, "picture/" + purpose, name)) for name in names])
