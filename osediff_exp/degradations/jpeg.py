"""A JPEG round trip in floating point: the codec that Real-ESRGAN's training degradation uses (DiffJPEG without its soft rounding).

It differs from libjpeg where the statistics of training pairs notice: chroma is halved by averaging and doubled by repetition (libjpeg
smooths it), the quality may be fractional, tables are neither rounded nor floored at 1, pixels are not rounded to 8 bits, and sizes
that are no multiple of 16 are padded with black. No entropy coding: it is lossless, so it is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from osediff_exp.degradations.base import Image

# ITU-T T.81, tables K.1 and K.2, rows by vertical frequency. The reference applies them transposed, and so does this codec.
_LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).T
_CHROMA_TABLE = np.full((8, 8), 99)
_CHROMA_TABLE[:4, :4] = np.array([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]).T

# JFIF's colour transform from [0, 1] to 0..255 levels, with the codec's level shift of 128 folded in: chroma is centred already.
_TO_YCC = 255.0 * np.array([[0.299, 0.587, 0.114, -128 / 255], [-0.168736, -0.331264, 0.5, 0.0], [0.5, -0.418688, -0.081312, 0.0]])
_TO_RGB = np.array([[1.0, 0.0, 1.402, 128.0], [1.0, -0.344136, -0.714136, 128.0], [1.0, 1.772, 0.0, 128.0]]) / 255.0


def _dct_basis() -> npt.NDArray[np.float64]:
    """Return B (64, 64): a flattened 8x8 block times B is its orthonormal DCT-II, flattened (vertical frequency first)."""
    x, u = np.arange(8)[:, None], np.arange(8)[None, :]
    one_axis = np.cos((2 * x + 1) * u * np.pi / 16) * np.where(u == 0, np.sqrt(1 / 8), np.sqrt(1 / 4))
    return np.asarray(np.kron(one_axis, one_axis), dtype=np.float64)


_BASIS = _dct_basis()


def table_factor(quality: float) -> float:
    """Return the factor on the tables: 50 / quality below 50, 2 - quality / 50 from 50 on; quality in (0, 100]."""
    factor = 50.0 / quality if quality < 50.0 else 2.0 - quality / 50.0
    return max(factor, 1e-3)  # at 100 the reference divides by zero; a thousandth of the table is as good as lossless


def _quantise_plane(plane: npt.NDArray[Any], table: npt.NDArray[np.int64], factor: float) -> Image:
    """Return (H, W) after DCT, rounding to multiples of ``factor * table`` and inverse DCT; H and W multiples of 8."""
    height, width = plane.shape
    step = factor * table.ravel()
    blocks = plane.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2).reshape(-1, 64)
    coefficients = blocks @ (_BASIS / step).astype(np.float32)
    np.rint(coefficients, out=coefficients)
    decoded = coefficients @ (_BASIS * step).T.astype(np.float32)
    return decoded.reshape(height // 8, width // 8, 8, 8).swapaxes(1, 2).reshape(height, width)


def _code_chroma(plane: npt.NDArray[Any], factor: float) -> Image:
    """Return (H, W) after halving by averages, quantisation and doubling by repetition; H and W multiples of 16."""
    height, width = plane.shape
    half = cv2.resize(plane, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    coded = _quantise_plane(half, _CHROMA_TABLE, factor)
    return np.asarray(cv2.resize(coded, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.float32)


def jpeg(image: Image, quality: float) -> Image:
    """Return (H, W, 3), RGB in [0, 1], after a 4:2:0 JPEG round trip at ``quality`` in (0, 100]."""
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % 16, 0, -width % 16, cv2.BORDER_CONSTANT, value=0)
    factor = table_factor(quality)
    y, cb, cr = cv2.split(cv2.transform(padded, _TO_YCC))
    planes = [_quantise_plane(y, _LUMA_TABLE, factor), _code_chroma(cb, factor), _code_chroma(cr, factor)]
    decoded = cv2.transform(cv2.merge(planes), _TO_RGB)[:height, :width]
    return np.clip(decoded, 0.0, 1.0)
