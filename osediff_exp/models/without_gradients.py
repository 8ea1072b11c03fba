"""Running a network without gradients before it runs with them, in one block of mixed precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_gradients() -> Iterator[None]:
    """As ``torch.no_grad()``, for trainable weights that the same block of autocast uses with gradients later.

    autocast keeps a weight's rounded copy to the block's end. Before pull request 165068 of torch it also kept one made without gradients,
    and whoever used the weight later got that copy: no gradient reached the weight. Rounding it again gives the same numbers.
    """
    try:
        with torch.no_grad():
            yield
    finally:
        torch.clear_autocast_cache()
