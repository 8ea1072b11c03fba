"""The sharpness ratio."""

import torch

from osediff_exp.metrics.sharpness import Sharpness, laplacian_deviation


def _noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def test_laplacian_of_white_noise_has_the_closed_form_deviation() -> None:
    grey = _noise(1, 1, 256, 256).repeat(1, 3, 1, 1)
    # Y spans 219/255 of the grey range; the kernel's squared weights sum to 4 * 1 + 16 = 20; a uniform variable's variance is 1/12.
    expected = 219 / 255 * (20 / 12) ** 0.5
    assert abs(float(laplacian_deviation(grey)) / expected - 1) < 0.01


def test_ratio_is_one_for_identical_images_and_scales_with_contrast() -> None:
    target = _noise(2, 3, 32, 32)
    softer = 0.5 + 0.25 * (target - 0.5)
    metric = Sharpness()
    assert torch.allclose(metric.per_image(target, target), torch.ones(2, dtype=torch.float64))
    assert torch.allclose(metric.per_image(softer, target), torch.full((2,), 0.25, dtype=torch.float64))


def test_linear_ramp_has_no_sharpness_and_a_flat_target_gives_a_finite_ratio() -> None:
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    assert float(laplacian_deviation(ramp)) < 1e-6
    flat = torch.full((1, 3, 32, 32), 0.5)
    assert torch.isfinite(Sharpness().per_image(_noise(1, 3, 32, 32), flat)).all()
