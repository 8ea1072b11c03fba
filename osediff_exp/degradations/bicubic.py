"""The classic degradation: antialiased bicubic reduction, and bicubic enlargement back."""

from __future__ import annotations

import numpy as np
from PIL import Image as PilImage

from osediff_exp.degradations.base import Degradation, Image, LowQuality, check_image, check_scale, to_8_bit


def bicubic(image: Image, height: int, width: int) -> Image:
    """Resize (H, W, 3) float32 to (height, width, 3): a = -0.5, widened by the factor when shrinking, like MATLAB's imresize.

    Values may leave [0, 1]. At the border Pillow renormalises the kernel where MATLAB mirrors the picture.
    """
    channels = [PilImage.fromarray(np.ascontiguousarray(image[..., c])) for c in range(3)]
    resized = [np.asarray(channel.resize((width, height), PilImage.Resampling.BICUBIC)) for channel in channels]
    return np.stack(resized, axis=-1)


class BicubicDegradation(Degradation):
    """``lr`` is the bicubic reduction by ``scale``, ``lq`` the bicubic enlargement of ``lr``; draws no random numbers."""

    def __init__(self, *, scale: int) -> None:
        self.scale = check_scale(scale)

    def __call__(self, hq: Image, rng: np.random.Generator) -> LowQuality:
        check_image(hq, self.scale)
        height, width = hq.shape[:2]
        lr = to_8_bit(bicubic(hq, height // self.scale, width // self.scale))
        return LowQuality(lr=lr, lq=to_8_bit(bicubic(lr, height, width)))
