"""Feature maps on their way from one network into the layers of another, which may be frozen."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from torch import Tensor


def trainable_input(features: Tensor) -> Tensor:
    """Return a frozen network's features as layers that train take them: in float32, and in the plain memory format.

    Frozen weights may be in half precision, what trains is not. And torch's GroupNorm crashes on the CPU (2.13) in the backward pass of an
    input in the channels-last format that needs no gradient, where its own weights do.
    """
    return features.float().contiguous()


class CarriedMaps:
    """Holds the maps that one network made until the layers that want them, inside another network, ask for theirs.

    Those layers stand where the library calls them with its own arguments alone: this object is what they share. It keeps the maps until
    the next ones come, so that a backward pass that recomputes activations finds them. A copy of a network gets an empty one of its own.
    """

    def __init__(self) -> None:
        self._maps: dict[Hashable, Tensor] = {}

    def __setitem__(self, key: Hashable, value: Tensor) -> None:
        self._maps[key] = value

    def __getitem__(self, key: Hashable) -> Tensor:
        assert key in self._maps, f"no map for {key}: there are {list(self._maps)}"
        return self._maps[key]

    def replace(self, maps: dict[Hashable, Tensor]) -> None:
        """Hold these maps and no others."""
        self._maps = dict(maps)

    def __deepcopy__(self, memo: dict[int, Any]) -> CarriedMaps:
        memo[id(self)] = copy = CarriedMaps()  # one for all layers of the copied network
        return copy
