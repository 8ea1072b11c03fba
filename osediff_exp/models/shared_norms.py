"""One set of GroupNorm statistics for all tiles of a picture (docs/adr/0010).

A GroupNorm divides by statistics of the whole picture. A tile normalised by its own has another contrast and colour than its neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Moments = tuple[Tensor, Tensor]
"""Mean and variance of each group, (G,), float32."""


class SharedNorms:
    """Statistics of every GroupNorm of ``network``: :meth:`measured` on one picture, then :meth:`applied` to any number of tiles."""

    def __init__(self, network: nn.Module) -> None:
        self.layers = [layer for layer in network.modules() if isinstance(layer, nn.GroupNorm)]
        self.moments: dict[nn.GroupNorm, Moments] = {}

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Inside the block each GroupNorm remembers the statistics of its input, a picture of its own (a batch counts as one).

        One pass over one picture: later layers see what earlier ones make of the same statistics. Pooling them over tiles that are
        normalised each by its own gives other numbers, and repeating that does not converge.
        """
        with self._forward(self._measure):
            yield

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block each GroupNorm uses the remembered statistics."""
        with self._forward(self._apply):
            yield

    @contextmanager
    def _forward(self, forward: Callable[[nn.GroupNorm, Tensor], Tensor]) -> Iterator[None]:
        for layer in self.layers:
            layer.forward = partial(forward, layer)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self.layers:
                del layer.forward

    def _measure(self, layer: nn.GroupNorm, x: Tensor) -> Tensor:
        groups = x.detach().float().reshape(len(x), layer.num_groups, -1).transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(groups, dim=1, correction=0)
        self.moments[layer] = mean, variance
        return self._apply(layer, x)

    def _apply(self, layer: nn.GroupNorm, x: Tensor) -> Tensor:
        # With given statistics a GroupNorm is a BatchNorm in evaluation mode.
        mean, variance = (moment.repeat_interleave(layer.num_channels // layer.num_groups) for moment in self.moments[layer])
        weight, bias = (None if p is None else p.float() for p in (layer.weight, layer.bias))
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=layer.eps)
