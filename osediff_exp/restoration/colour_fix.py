"""Giving a restored picture the colours of its low-quality enlargement: generators shift colours, and the enlargement has them right.

Both fixes work in place and strip by strip, so that they need no second picture in memory; strips change nothing but rounding (``adain``)
or nothing at all (``wavelet``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from osediff_exp.errors import UserError, nearest

ColorFix = Literal["adain", "wavelet", "none"]

LEVELS = 5
HALO = 2**LEVELS - 1  # rows that five blurs of radius 1, 2, 4, 8, 16 see beyond their own
_EPSILON = 1e-5  # added to variances, as in the released code: a flat picture has no contrast to divide by
_STRIP_PIXELS = 1 << 20


def check_color_fix(name: str) -> None:
    """Raise UserError for an unknown colour fix."""
    if name not in get_args(ColorFix):
        raise UserError(f"color_fix={name} is unknown: use {', '.join(get_args(ColorFix))}.{nearest(name, get_args(ColorFix))}")


def fix_color_(output: Tensor, reference: Tensor, method: ColorFix, *, strip_rows: int | None = None) -> Tensor:
    """Change the colours of ``output`` in place.

    Args:
        output: (B, 3, H, W), float32 in [0, 1]; afterwards in [0, 1] again, not rounded to 8 bit.
        reference: the same shape, float32 in [0, 1] or uint8.
        method: ``adain`` sets each channel's mean and standard deviation to the reference's, ``wavelet`` takes all but the finest details
            from the reference, ``none`` does nothing.
        strip_rows: rows taken at a time; None: about a million pixels.

    Returns:
        ``output``.
    """
    check_color_fix(method)
    assert output.shape == reference.shape, f"output {tuple(output.shape)}, reference {tuple(reference.shape)}"
    if method == "none":
        return output
    rows = strip_rows or max(64, _STRIP_PIXELS // output.shape[-1])
    return (_adain_ if method == "adain" else _wavelet_)(output, reference, rows).clamp_(0, 1)


def _adain_(output: Tensor, reference: Tensor, rows: int) -> Tensor:
    """y = (x - mean x) / std x * std r + mean r, by channel (AdaIN; StableSR's colour fix, OSEDiff's default), as one affine map."""
    mean, std = _statistics(output, rows)
    target_mean, target_std = _statistics(reference, rows)
    gain = target_std / std
    return output.mul_(gain.float()).add_((target_mean - gain * mean).float())


def _statistics(picture: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation (B, 3, 1, 1), float64, of every channel."""
    count = picture.shape[-2] * picture.shape[-1]
    total = torch.zeros(*picture.shape[:2], 1, 1, dtype=torch.float64)
    squares = total.clone()
    for strip in _strips(picture.shape[-2], rows):
        values = _unit(picture[..., strip, :]).double()
        total += values.sum((-2, -1), keepdim=True)
        squares += values.square().sum((-2, -1), keepdim=True)
    mean = total / count
    variance = (squares - count * mean.square()).clamp_(min=0) / max(1, count - 1)
    return mean, (variance + _EPSILON).sqrt()


def _wavelet_(output: Tensor, reference: Tensor, rows: int) -> Tensor:
    """y = x - low(x) + low(r): details of the output over the reference's coarse picture (StableSR).

    ``low`` is linear, so this is x + low(r - x): one set of blurs instead of two, and exactly x where the pictures agree.
    """
    height = output.shape[-2]
    above = output[..., :0, :]  # differences of the rows above, taken before those rows were changed
    for strip in _strips(height, rows):
        top, bottom = strip.start - above.shape[-2], min(height, strip.stop + HALO)
        new = slice(strip.start, bottom)
        difference = torch.cat([above, _unit(reference[..., new, :]) - output[..., new, :]], dim=-2)
        above = difference[..., max(0, strip.stop - HALO - top) : strip.stop - top, :].clone()
        low = _blur(difference)
        output[..., strip, :] += low[..., strip.start - top : strip.stop - top, :]
    return output


def _blur(picture: Tensor) -> Tensor:
    """Blur with [1, 2, 1] x [1, 2, 1] / 16, dilated by 1, 2, 4, 8, 16; borders are repeated."""
    for level in range(LEVELS):
        for dim in (-2, -1):
            picture = _blur_along(picture, dim, 2**level)
    return picture


def _blur_along(picture: Tensor, dim: int, radius: int) -> Tensor:
    """Return (before + after + 2 here) / 4, ``radius`` places apart. By slices: by indices it takes seven times as long."""
    length = picture.shape[dim]
    reach = min(radius, length)
    blurred = torch.empty_like(picture)
    blurred.narrow(dim, reach, length - reach).copy_(picture.narrow(dim, 0, length - reach))
    blurred.narrow(dim, 0, reach).copy_(picture.narrow(dim, 0, 1))
    blurred.narrow(dim, 0, length - reach).add_(picture.narrow(dim, reach, length - reach))
    blurred.narrow(dim, length - reach, reach).add_(picture.narrow(dim, length - 1, 1))
    return blurred.add_(picture, alpha=2).div_(4)


def _strips(height: int, rows: int) -> Iterator[slice]:
    for top in range(0, height, rows):
        yield slice(top, min(height, top + rows))


def _unit(strip: Tensor) -> Tensor:
    return strip.float().div_(255) if strip.dtype == torch.uint8 else strip
