"""The chain: closed forms, where samplers end, and that noise comes from nowhere but the function handed in."""

from __future__ import annotations

import pytest
import torch
from chain_parts import gaussian_denoise, normal, point_denoise, sd_schedule, seeded_noise
from torch import Tensor

from osediff_exp.diffusion import add_noise, guide
from osediff_exp.errors import UserError
from osediff_exp.methods.chain.ddpm import DDIMSampler, DDPMSampler, ddim_step, posterior
from osediff_exp.methods.chain.denoising import denoising_loss, guided, implied_eps, with_adjusted_x0
from osediff_exp.methods.chain.sampler import Sampler
from osediff_exp.methods.chain.spacing import spaced_timesteps
from osediff_exp.methods.chain.starts import start_latent
from osediff_exp.methods.chain.unipc import UniPCSampler

SCHEDULE = sd_schedule()
SAMPLERS: list[Sampler] = [DDPMSampler(), DDIMSampler(), DDIMSampler(eta=0.5, spacing="trailing"), UniPCSampler()]


# ---- training loss


def test_the_loss_of_a_perfect_denoiser_is_zero_and_of_a_zero_one_is_the_mean_square_of_eps() -> None:
    z0, eps, t = normal(3, 4, 6, 6), normal(3, 4, 6, 6, seed=1), torch.tensor([0, 500, 999])
    assert denoising_loss(lambda z, t: eps, z0, eps=eps, t=t, schedule=SCHEDULE) == 0
    zero = denoising_loss(lambda z, t: torch.zeros_like(z), z0, eps=eps, t=t, schedule=SCHEDULE)
    torch.testing.assert_close(zero, eps.square().mean())


def test_the_denoiser_sees_each_sample_at_its_own_timestep() -> None:
    z0, eps, t = normal(2, 4, 5, 5), normal(2, 4, 5, 5, seed=1), torch.tensor([10, 900])
    seen: list[Tensor] = []
    denoising_loss(lambda z, t: seen.append(z) or z, z0, eps=eps, t=t, schedule=SCHEDULE)
    for k, step in enumerate([10, 900]):
        torch.testing.assert_close(seen[0][k], add_noise(z0[k], eps[k], SCHEDULE.abar(step)))


# ---- guidance and estimates


def test_guidance_one_is_the_conditional_branch_and_never_asks_the_other() -> None:
    def never(z: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("asked")

    branch = guided(lambda z, t: 2 * z, never, 1.0)
    assert torch.equal(branch(z := normal(1, 4, 2, 2), torch.zeros(1, dtype=torch.long)), 2 * z)


def test_guidance_extrapolates_between_the_branches() -> None:
    z, t = normal(2, 4, 2, 2), torch.tensor([3, 5])
    both = guided(lambda z, t: 2 * z, lambda z, t: -z, 4.0)
    torch.testing.assert_close(both(z, t), guide(2 * z, -z, 4.0))
    torch.testing.assert_close(guided(lambda z, t: 2 * z, lambda z, t: -z, 0.0)(z, t), -z)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_adjusting_x0_by_nothing_changes_nothing_and_by_a_constant_gives_it(prediction: str) -> None:
    schedule = sd_schedule(prediction)
    denoise = point_denoise(schedule, normal(2, 4, 3, 3))
    z, t = normal(2, 4, 3, 3, seed=2), torch.tensor([40, 700])
    torch.testing.assert_close(with_adjusted_x0(denoise, lambda x0, t: x0, schedule)(z, t), denoise(z, t), atol=1e-4, rtol=1e-4)
    other = normal(2, 4, 3, 3, seed=3)
    torch.testing.assert_close(
        with_adjusted_x0(denoise, lambda x0, t: other, schedule)(z, t), point_denoise(schedule, other)(z, t), atol=1e-4, rtol=1e-4
    )


def test_the_implied_eps_turns_x0_into_z() -> None:
    x0, eps = normal(2, 4, 3, 3), normal(2, 4, 3, 3, seed=1)
    torch.testing.assert_close(implied_eps(add_noise(x0, eps, SCHEDULE.abar(300)), x0, SCHEDULE.abar(300)), eps, atol=1e-5, rtol=1e-5)


# ---- one step


def test_the_respaced_posterior_keeps_the_marginals() -> None:
    """z_t ~ q(z_t | x0), then z_s from the posterior: mean sqrt(abar_s) x0 and variance 1 - abar_s, whatever s and t."""
    for t, s in [(999, 994), (500, 20), (999, 0)]:
        abar_t, abar_s = SCHEDULE.abar(t), SCHEDULE.abar(s)
        x0, unit = torch.tensor(1.5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
        mean, deviation = posterior(abar_t.sqrt() * x0, x0, abar_t, abar_s)
        torch.testing.assert_close(mean, abar_s.sqrt() * x0)
        slope = posterior(unit, 0 * x0, abar_t, abar_s)[0]
        torch.testing.assert_close(slope.square() * (1 - abar_t) + deviation.square(), 1 - abar_s)


def test_between_neighbours_the_posterior_is_that_of_the_ddpm_paper() -> None:
    abar_t, abar_s = SCHEDULE.abar(600), SCHEDULE.abar(599)
    beta = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()[600]
    z, x0 = normal(5).double(), normal(5, seed=1).double()
    expected = abar_s.sqrt() * beta / (1 - abar_t) * x0 + (1 - beta).sqrt() * (1 - abar_s) / (1 - abar_t) * z
    mean, deviation = posterior(z, x0, abar_t, abar_s)
    torch.testing.assert_close(mean, expected)
    torch.testing.assert_close(deviation.square(), (1 - abar_s) / (1 - abar_t) * beta)


def test_ddim_with_eta_one_is_the_ddpm_posterior() -> None:
    z, x0 = normal(6).double(), normal(6, seed=1).double()
    for t, s in [(999, 500), (20, 0)]:
        for ours, theirs in zip(
            ddim_step(z, x0, SCHEDULE.abar(t), SCHEDULE.abar(s), eta=1.0), posterior(z, x0, SCHEDULE.abar(t), SCHEDULE.abar(s)), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


# ---- whole chains


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_sampler_ends_at_the_one_picture_that_there_is(prediction: str, steps: int) -> None:
    schedule, x0 = sd_schedule(prediction), normal(2, 4, 4, 4)
    for sampler in SAMPLERS:
        for start in (None, 400):
            heard: list[tuple[int, int]] = []
            end = sampler.sample(
                point_denoise(schedule, x0),
                normal(2, 4, 4, 4, seed=5),
                schedule=schedule,
                steps=steps,
                start=start,
                noise=seeded_noise(1, [0, 1]),
                progress=lambda done, total, heard=heard: heard.append((done, total)),  # type: ignore[misc]
            )
            torch.testing.assert_close(end, x0, atol=2e-3, rtol=2e-3)
            assert heard == [(k, steps) for k in range(1, steps + 1)]


@pytest.mark.parametrize(("sampler", "steps"), [(DDPMSampler(), 150), (DDIMSampler(), 60), (UniPCSampler(), 40)])
def test_many_steps_give_the_datas_mean_and_spread(sampler: Sampler, steps: int) -> None:
    denoise = gaussian_denoise(SCHEDULE, mean=0.7, std=0.3)
    end = sampler.sample(denoise, normal(1, 4, 48, 48, seed=9), schedule=SCHEDULE, steps=steps, noise=seeded_noise(0, [0]))
    assert float(end.mean()) == pytest.approx(0.7, abs=0.03)
    assert float(end.std()) == pytest.approx(0.3, abs=0.04)


def test_a_picture_gets_the_same_chain_alone_and_in_a_batch() -> None:
    denoise, z = gaussian_denoise(SCHEDULE, mean=0.0, std=1.0), normal(3, 4, 4, 4)
    for sampler in SAMPLERS:
        batch = sampler.sample(denoise, z, schedule=SCHEDULE, steps=5, noise=seeded_noise(3, [10, 11, 12]))
        alone = sampler.sample(denoise, z[1:2], schedule=SCHEDULE, steps=5, noise=seeded_noise(3, [11]))
        torch.testing.assert_close(batch[1:2], alone)


def test_the_noise_is_asked_for_by_timestep_and_not_in_the_last_step() -> None:
    asked: list[str] = []

    def noise(purpose: str, shape: tuple[int, ...]) -> Tensor:
        asked.append(purpose)
        return torch.zeros(1, *shape)

    DDPMSampler().sample(gaussian_denoise(SCHEDULE, mean=0, std=1), normal(1, 4, 2, 2), schedule=SCHEDULE, steps=4, noise=noise)
    assert asked == ["step/999", "step/666", "step/333"]
    asked.clear()
    DDIMSampler().sample(gaussian_denoise(SCHEDULE, mean=0, std=1), normal(1, 4, 2, 2), schedule=SCHEDULE, steps=4, noise=noise)
    assert asked == []


# ---- timesteps and starts


def test_spacings() -> None:
    assert spaced_timesteps(start=999, steps=5) == [999, 749, 500, 250, 0]
    assert spaced_timesteps(start=999, steps=1) == [999]
    assert spaced_timesteps(start=999, steps=1000) == list(range(999, -1, -1))
    fifty = spaced_timesteps(start=999, steps=50, spacing="leading")
    assert (fifty[0], fifty[1], fifty[-1], len(fifty)) == (981, 961, 1, 50)
    fifty = spaced_timesteps(start=999, steps=50, spacing="trailing")
    assert (fifty[0], fifty[1], fifty[-1], len(fifty)) == (999, 979, 19, 50)
    for spacing in ("ends", "leading", "trailing"):
        steps = spaced_timesteps(start=899, steps=20, spacing=spacing)  # type: ignore[arg-type]
        assert sorted(set(steps), reverse=True) == steps
        assert 0 <= steps[-1] < steps[0] <= 899


def test_starts_are_noise_or_the_latent_at_the_first_timestep() -> None:
    lr, cond, abar = normal(2, 4, 3, 3), normal(2, 4, 3, 3, seed=1), SCHEDULE.abar(999)
    noise = seeded_noise(4, [7, 8])
    eps = noise("start", (4, 3, 3))
    assert torch.equal(start_latent("noise", lr=lr, cond=None, abar_t=abar, noise=noise), eps)
    torch.testing.assert_close(start_latent("lr", lr=lr, cond=None, abar_t=abar, noise=noise), add_noise(lr, eps, abar))
    torch.testing.assert_close(start_latent("cond", lr=lr, cond=cond, abar_t=abar, noise=noise), add_noise(cond, eps, abar))


def test_mistakes_are_named() -> None:
    z, noise = normal(1, 4, 2, 2), seeded_noise(0, [0])
    with pytest.raises(UserError, match=r"steps=0 does not fit .* use 1 to 1000"):
        DDPMSampler().sample(lambda z, t: z, z, schedule=SCHEDULE, steps=0, noise=noise)
    with pytest.raises(UserError, match=r"steps=401 does not fit a UniPC chain that starts at timestep 400"):
        UniPCSampler().sample(lambda z, t: z, z, schedule=SCHEDULE, steps=401, start=400, noise=noise)
    with pytest.raises(UserError, match=r"spacing=trailng is unknown.*Did you mean 'trailing'"):
        spaced_timesteps(start=9, steps=2, spacing="trailng")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="start=conds is unknown.*Did you mean 'cond'"):
        start_latent("conds", lr=z, cond=None, abar_t=SCHEDULE.abar(9), noise=noise)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="start=cond needs"):
        start_latent("cond", lr=z, cond=None, abar_t=SCHEDULE.abar(9), noise=noise)
    with pytest.raises(UserError, match=r"eta=1\.5"):
        DDIMSampler(eta=1.5)
