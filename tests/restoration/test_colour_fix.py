"""The colour fixes: exact identities, closed forms, and strips that change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.errors import UserError
from osediff_exp.restoration.colour_fix import ColorFix, fix_color_


def picture(seed: int, height: int = 75, width: int = 23, *, low: float = 0.2, high: float = 0.8) -> Tensor:
    return low + (high - low) * torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))


def smooth(height: int = 75, width: int = 23) -> Tensor:
    rows, columns = torch.linspace(0.3, 0.5, height)[:, None], torch.linspace(0.1, 0.2, width)[None]
    return (rows + columns).expand(2, 3, height, width).clone()


@pytest.mark.parametrize("method", ["adain", "wavelet", "none"])
def test_a_picture_with_its_own_colours_is_left_as_it_is(method: ColorFix) -> None:
    x = picture(0)
    assert torch.equal(fix_color_(x.clone(), x, method), x)


@pytest.mark.parametrize("method", ["adain", "wavelet"])
def test_a_constant_shift_is_removed(method: ColorFix) -> None:
    x = picture(0)
    shift = torch.tensor([0.1, -0.15, 0.05]).view(1, 3, 1, 1)
    torch.testing.assert_close(fix_color_(x + shift, x, method), x, atol=1e-6, rtol=0)


def test_adain_sets_each_channels_mean_and_deviation() -> None:
    x, reference = picture(0, low=0.45, high=0.55), picture(1) * torch.tensor([1.0, 0.9, 0.8]).view(1, 3, 1, 1)
    fixed = fix_color_(x, reference, "adain")
    torch.testing.assert_close(fixed.mean((2, 3)), reference.mean((2, 3)))
    expected = reference.std((2, 3)) * (0.1**2 / 12 / (0.1**2 / 12 + 1e-5)) ** 0.5  # what the epsilon in the variances leaves
    torch.testing.assert_close(fixed.std((2, 3)), expected, atol=2e-3, rtol=0)


def test_adain_of_a_flat_picture_is_the_references_mean() -> None:
    fixed = fix_color_(torch.full((1, 3, 9, 9), 0.4), picture(1, 9, 9)[:1], "adain")
    torch.testing.assert_close(fixed, picture(1, 9, 9)[:1].mean((2, 3), keepdim=True).expand_as(fixed))


def test_wavelet_keeps_the_finest_details_and_takes_the_rest() -> None:
    places = torch.arange(75)[:, None] + torch.arange(23)[None]
    checkerboard = 0.05 * (1 - 2 * (places % 2)).float()  # [1, 2, 1] / 4 makes it vanish, away from the repeated border
    fixed = fix_color_(smooth() + checkerboard + 0.1, smooth(), "wavelet")
    torch.testing.assert_close(fixed[..., 1:-1, 1:-1], (smooth() + checkerboard)[..., 1:-1, 1:-1], atol=5e-3, rtol=0)


def low(x: Tensor) -> Tensor:
    """The coarse picture by its definition: five dilated convolutions over repeated borders."""
    kernel = torch.tensor([1.0, 2.0, 1.0])
    kernel = (kernel[:, None] * kernel[None] / 16).expand(3, 1, 3, 3)
    for radius in (1, 2, 4, 8, 16):
        x = F.conv2d(F.pad(x, [radius] * 4, mode="replicate"), kernel, dilation=radius, groups=3)
    return x


def test_wavelet_is_the_outputs_details_over_the_references_coarse_picture() -> None:
    x, reference = picture(0), picture(1)
    expected = (x - low(x) + low(reference)).clamp(0, 1)
    torch.testing.assert_close(fix_color_(x.clone(), reference, "wavelet"), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("rows", [7, 30, 31, 40, 74, 75])
def test_wavelet_by_strips_is_wavelet_to_the_bit(rows: int) -> None:
    x, reference = picture(0), picture(1)
    whole = fix_color_(x.clone(), reference, "wavelet", strip_rows=1000)
    assert torch.equal(fix_color_(x.clone(), reference, "wavelet", strip_rows=rows), whole)


@pytest.mark.parametrize("rows", [1, 31, 74])
def test_adain_by_strips_is_adain(rows: int) -> None:
    x, reference = picture(0), picture(1)
    whole = fix_color_(x.clone(), reference, "adain", strip_rows=1000)
    torch.testing.assert_close(fix_color_(x.clone(), reference, "adain", strip_rows=rows), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("method", ["adain", "wavelet"])
def test_bytes_serve_as_a_reference_and_the_result_stays_in_range(method: ColorFix) -> None:
    x, reference = picture(0, low=0, high=1), (picture(1, low=-1, high=2).clamp(0, 1) * 255).round()
    fixed = fix_color_(x.clone(), reference.byte(), method)
    assert torch.equal(fixed, fix_color_(x.clone(), reference / 255, method))
    assert fixed.min() >= 0
    assert fixed.max() <= 1


def test_it_works_in_place_and_on_views() -> None:
    canvas = picture(0, 80, 30)
    output = canvas[..., :75, :23]
    expected = fix_color_(output.clone(), picture(1), "wavelet")
    assert fix_color_(output, picture(1), "wavelet").data_ptr() == canvas.data_ptr()
    assert torch.equal(output, expected)


def test_an_unknown_fix_is_named() -> None:
    with pytest.raises(UserError, match=r"color_fix=wavelets is unknown: use adain, wavelet, none\. Did you mean 'wavelet'\?"):
        fix_color_(picture(0), picture(1), "wavelets")  # type: ignore[arg-type]
