"""Training now and then without words, which is what classifier-free guidance needs (Ho and Salimans 2022)."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_text(embeds: Tensor, empty: Tensor, *, dropped: Tensor) -> Tensor:
    """Return the text features with some samples' replaced by those of the empty prompt.

    Args:
        embeds: (B, L, D).
        empty: (1, L, D) or (B, L, D), features of "".
        dropped: (B,) booleans: who loses its words. They are handed in, so that this is a function of its arguments.
    """
    return torch.where(dropped.to(embeds.device)[:, None, None], empty, embeds)
