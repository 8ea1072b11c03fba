"""Diffusion mathematics against closed forms and against diffusers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from osediff_exp.devices import sent
from osediff_exp.diffusion import (
    PredictionType,
    TimestepTable,
    add_noise,
    beta_schedule,
    cumulative_alphas,
    guide,
    predict_x0,
    regression_target,
    rounded_like,
)
from osediff_exp.models.noise_schedule import NoiseSchedule

SD = {"start": 0.00085, "end": 0.012, "num_steps": 1000}
TIMESTEPS = torch.tensor([0, 1, 250, 500, 999])


@pytest.fixture(scope="module")
def abar() -> Tensor:
    return cumulative_alphas(beta_schedule("scaled_linear", **SD))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_stable_diffusions_last_step_amplifies_14_65_times(abar: Tensor) -> None:
    assert abar.dtype == torch.float64
    assert abar[999].item() == pytest.approx(0.00466, abs=5e-6)
    assert abar[999].rsqrt().item() == pytest.approx(14.65, abs=5e-3)


def test_betas_end_where_they_are_told_and_abar_is_their_product() -> None:
    linear, scaled = (beta_schedule(name, start=0.1, end=0.4, num_steps=3) for name in ("linear", "scaled_linear"))
    assert linear.tolist() == pytest.approx([0.1, 0.25, 0.4])
    assert scaled.tolist() == pytest.approx([0.1, ((0.1**0.5 + 0.4**0.5) / 2) ** 2, 0.4])
    assert cumulative_alphas(linear).tolist() == pytest.approx([0.9, 0.9 * 0.75, 0.9 * 0.75 * 0.6])


def test_an_unknown_schedule_or_prediction_is_refused(abar: Tensor) -> None:
    with pytest.raises(ValueError, match="scaled_linear"):
        beta_schedule("cosine", **SD)
    for function in (predict_x0, regression_target):
        with pytest.raises(ValueError, match="v_prediction"):
            function(noise(1, 1, 1, 1), noise(1, 1, 1, 1), abar[0], "sample")


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_regression_target_is_the_output_that_predicts_x0(kind: PredictionType, abar: Tensor) -> None:
    x0, eps, abar_t = noise(5, 4, 3, 2), noise(5, 4, 3, 2, seed=1), abar[TIMESTEPS]
    x_t = add_noise(x0, eps, abar_t)
    assert torch.allclose(predict_x0(x_t, regression_target(x0, eps, abar_t, kind), abar_t, kind), x0, atol=1e-12)


def test_a_scalar_timestep_is_every_samples_timestep(abar: Tensor) -> None:
    x_t, output = noise(2, 4, 3, 3), noise(2, 4, 3, 3, seed=1)
    for kind in ("epsilon", "v_prediction"):
        assert torch.equal(predict_x0(x_t, output, abar[250], kind), predict_x0(x_t, output, abar[250].repeat(2), kind))


class NoFloat64(TorchDispatchMode):
    """Refuses float64 on the device ``meta``, as Apple's GPUs do on theirs."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        assert not (isinstance(output, Tensor) and output.device.type == "meta" and output.dtype == torch.float64), function
        return output


@pytest.mark.parametrize("t", [250, TIMESTEPS])
def test_nothing_in_float64_goes_to_a_device_without_it(t: int | Tensor) -> None:
    schedule = NoiseSchedule.from_config(
        {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    )
    x0 = torch.empty(5, 4, 3, 2, device="meta")
    with NoFloat64():
        abar_t = schedule.abar(t)
        assert add_noise(x0, x0, abar_t).shape == predict_x0(x0, x0, abar_t, "epsilon").shape == x0.shape
        assert regression_target(x0, x0, abar_t, "v_prediction").device == x0.device


def test_v_is_a_rotation_of_x0_and_eps(abar: Tensor) -> None:
    x0, eps = noise(5, 1, 2, 2), noise(5, 1, 2, 2, seed=1)
    x_t, v = add_noise(x0, eps, abar[TIMESTEPS]), regression_target(x0, eps, abar[TIMESTEPS], "v_prediction")
    assert torch.allclose(x_t.square() + v.square(), x0.square() + eps.square(), atol=1e-12)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_noise_and_x0_agree_with_diffusers(kind: PredictionType, abar: Tensor) -> None:
    reference = DDPMScheduler(
        beta_start=SD["start"], beta_end=SD["end"], beta_schedule="scaled_linear", prediction_type=kind, clip_sample=False
    )
    x0, eps = noise(5, 4, 3, 2).float(), noise(5, 4, 3, 2, seed=1).float()
    x_t = add_noise(x0, eps, abar[TIMESTEPS])
    assert torch.allclose(x_t, reference.add_noise(x0, eps, TIMESTEPS), atol=2e-6)
    for k, t in enumerate(TIMESTEPS.tolist()[:-1]):
        theirs = reference.step(eps[k : k + 1], t, x_t[k : k + 1]).pred_original_sample
        assert torch.allclose(predict_x0(x_t[k : k + 1], eps[k : k + 1], abar[t], kind), theirs, atol=1e-4)


def test_half_precision_is_rounded_after_the_square_roots(abar: Tensor) -> None:
    x_t = add_noise(torch.ones(1, 1, 1, 1, dtype=torch.bfloat16), torch.zeros(1, 1, 1, 1, dtype=torch.bfloat16), abar[999])
    assert x_t.dtype == torch.bfloat16
    assert x_t.item() == abar[999].sqrt().bfloat16().item()


def test_guidance_of_1_is_the_conditional_and_of_0_the_unconditional() -> None:
    conditional, unconditional = noise(2, 3), noise(2, 3, seed=1)
    assert torch.allclose(guide(conditional, unconditional, 1.0), conditional)
    assert torch.equal(guide(conditional, unconditional, 0.0), unconditional)
    assert torch.allclose(guide(conditional, conditional, 7.5), conditional)
    assert torch.allclose(guide(conditional, unconditional, 7.5), 7.5 * conditional - 6.5 * unconditional)


def test_a_table_gives_numbers_where_the_timesteps_are() -> None:
    table = TimestepTable(torch.linspace(1, 0, 5, dtype=torch.float64))
    assert table[1].ndim == 0
    assert torch.equal(table[torch.tensor([3, 0, 3])], torch.tensor([0.25, 1, 0.25], dtype=torch.float64))
    x = torch.ones(2, 3, 4, 4, dtype=torch.bfloat16)
    number, samples = rounded_like(x, table[1], table[torch.tensor([1, 2])])
    assert (number.shape, samples.shape) == ((), (2, 1, 1, 1))
    assert number.dtype == samples.dtype == (number * x).dtype == torch.bfloat16


def test_a_scalar_multiplies_on_any_device() -> None:
    x = torch.empty(2, 3, device="meta")  # a device that cannot be read
    abar = TimestepTable(torch.tensor([0.5], dtype=torch.float64))[0]
    assert predict_x0(add_noise(x, x, abar), x, abar, "epsilon").device == x.device


def test_what_is_sent_to_the_cpu_stays_there() -> None:
    x = torch.ones(2)
    assert sent(x, torch.device("cpu")) is x
