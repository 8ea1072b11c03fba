"""Features of a picture's patches in a network that knows photos: what set-level metrics (KID, FD) compare.

The network is EfficientNet-Lite0 up to the end of its fourth stage (80 channels at a sixteenth of the side): of the networks that come
inside a package, no other layer tells degraded pictures apart as surely with so few features (experiments/metrics_with_power).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.models.taggers.imagenet import normalize_pixels, released_network

if TYPE_CHECKING:
    from collections.abc import Iterator

PATCH = 64  # px
NUM_FEATURES = 80
_PER_SIDE = 4  # patches at most along a side: 16 a picture, whatever its size, so that its cost and its weight are bounded
_STAGES = 4
_RMS = 4.61  # root mean square of the features of the 60 training photos inside the package
_REMEMBERED = 4096  # pictures; one takes 5 KiB


def cut_patches(image: Tensor) -> Tensor:
    """Return the patches (P, 3, 64, 64) of ``image`` (3, H, W): up to 4 x 4, spread evenly from border to border.

    A picture of 256 px is cut into all of its 16. The places depend on the picture's size alone. UserError under 64 px.
    """
    height, width = image.shape[-2:]
    if min(height, width) < PATCH:
        raise UserError(f"patches need pictures of at least {PATCH} x {PATCH} px, got {width} x {height}: leave kid and fd out")
    corners = ((y, x) for y in _starts(height) for x in _starts(width))
    return torch.stack([image[:, y : y + PATCH, x : x + PATCH] for y, x in corners])


def _starts(side: int) -> Iterator[int]:
    count, room = min(_PER_SIDE, side // PATCH), side - PATCH
    yield from (round(room * k / (count - 1)) for k in range(count)) if count > 1 else (room // 2,)


class PatchFeatures(nn.Module):
    """Pictures (B, 3, H, W) in [0, 1] to a list of their patches' features (P, 80), float32, of about unit mean square.

    Each picture is computed by itself, so that its features depend on nothing else, and remembered: metrics share the network, and a
    validation sees the same originals every time. Frozen; a copy is the network itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self.trunk = released_network().trunk(_STAGES).eval()
        self._known: OrderedDict[bytes, Tensor] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> PatchFeatures:
        return self

    def train(self, mode: bool = True) -> PatchFeatures:
        """Stay in evaluation mode, whatever the training loop sets."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of each picture's patches. UserError where a side is under 64 px."""
        return [self._of_picture(cut_patches(image.detach().float())) for image in images]

    def _of_picture(self, patches: Tensor) -> Tensor:
        key = blake2b(patches.cpu().numpy().tobytes(), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = self._compute(patches)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key]

    @torch.no_grad()
    def _compute(self, patches: Tensor) -> Tensor:
        device = next(self.trunk.parameters()).device
        with torch.autocast(device.type, enabled=False):  # half precision would cost digits that small differences need
            return self.trunk(normalize_pixels(patches.to(device))).mean(dim=(2, 3)).cpu() / _RMS


@cache
def patch_features() -> PatchFeatures:
    """Return the one network that all metrics share; UserError where its weights are missing."""
    return PatchFeatures()
