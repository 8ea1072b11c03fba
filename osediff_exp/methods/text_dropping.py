"""Training now and then without words, which is what classifier-free guidance needs (Ho and Salimans 2022)."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_text(embeds: Tensor, empty: Tensor, n: Tensor, *, probability: float) -> Tensor:
    """Return the text features with some samples' replaced by those of the empty prompt.

    Args:
        embeds: (B, L, D).
        empty: (1, L, D) or (B, L, D), features of "".
        n: (B,) standard normal numbers, one a sample: its quantile decides, so that who loses its words is a function of what is handed in.
        probability: of losing the words, in [0, 1].
    """
    dropped = torch.special.ndtr(n.double()).to(embeds.device) < probability
    return torch.where(dropped[:, None, None], empty, embeds)
