"""ResShift's schedule and SinSR's map: the released figures, and that marginal, posterior and map agree in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from osediff_exp.errors import UserError
from osediff_exp.methods.resshift.schedule import ShiftSchedule, root_etas

# (T, m): sqrt(eta_t) and the posterior's variances for t = 1..T; p = .3, kappa = 2 (released code)
PUBLISHED = {
    (15, 0.04): (
        ".02 .117165 .176305 .233629 .291574 .351009 .412356 .475858 .541672 .60991 .680658 .753985 .829951 .908606 .99",
        "0 .001553 .03066 .053529 .078156 .105413 .13573 .169415 .206732 .247927 .293244 .342927 .397223 .456386 .520675",
    ),
    (4, 0.2): (".1 .520096 .761382 .99", "0 .038521 .577119 .947297"),
}


def schedule(T: int = 15, m: float = 0.04) -> ShiftSchedule:
    return ShiftSchedule(T=T, m=m, p=0.3, kappa=2.0)


def latents(seed: int) -> list[torch.Tensor]:
    """z_0, y and n, float64: closed forms hold to rounding."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 4, 3, 3, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize(("T", "m"), PUBLISHED)
def test_the_schedule_has_the_released_figures(T: int, m: float) -> None:
    roots, variances = ([float(figure) for figure in row.split()] for row in PUBLISHED[T, m])
    assert root_etas(T=T, m=m, p=0.3, kappa=2.0).tolist() == pytest.approx(roots, abs=1e-6)
    found = [schedule(T, m).posterior_variance(t - 1, t) for t in range(1, T + 1)]
    assert found == pytest.approx(variances, abs=1e-6)


@pytest.mark.parametrize(("s", "t"), [(1, 2), (7, 8), (14, 15), (0, 1), (3, 11)])
def test_marginal_and_posterior_agree(s: int, t: int) -> None:
    """z_t from the marginal, then z_s from the posterior, has the marginal's mean and variance at s, whatever was between."""
    chain, (z_0, y, n) = schedule(), latents(1)
    mean = chain.posterior(chain.diffuse(z_0, y, torch.zeros_like(n), t), z_0, s, t)
    assert torch.allclose(mean, chain.diffuse(z_0, y, torch.zeros_like(n), s), atol=1e-12)
    share = float(chain.eta(s) / chain.eta(t))
    variance = chain.posterior_variance(s, t) + share**2 * chain.kappa**2 * float(chain.eta(t))
    assert variance == pytest.approx(chain.kappa**2 * float(chain.eta(s)), rel=1e-12)


@pytest.mark.parametrize("s", range(15))
def test_the_deterministic_map_keeps_the_noise(s: int) -> None:
    chain, (z_0, y, n) = schedule(), latents(2)
    for t in range(s + 1, 16):
        mapped = chain.deterministic(chain.diffuse(z_0, y, n, t), z_0, y, s, t)
        assert torch.allclose(mapped, chain.diffuse(z_0, y, n, s), atol=1e-12)


def test_the_start_leaves_out_what_is_unknown() -> None:
    """z_T of the marginal and the start differ by the share 1 - eta_T of the residual."""
    chain, (z_0, y, n) = schedule(), latents(3)
    assert torch.allclose(chain.start(y, n) - chain.diffuse(z_0, y, n, 15), (1 - 0.99**2) * (y - z_0), atol=1e-12)


def test_each_sample_has_its_own_t() -> None:
    chain, (z_0, y, n) = schedule(), latents(4)
    together = chain.diffuse(z_0, y, n, torch.tensor([3, 12]))
    for k, t in enumerate((3, 12)):
        assert torch.equal(together[k], chain.diffuse(z_0, y, n, t)[k])
    assert torch.equal(chain.scaled(z_0, torch.tensor([3, 12]))[1], chain.scaled(z_0, 12)[1])
    assert torch.allclose(chain.scaled(z_0, 15), z_0 / math.sqrt(4 * 0.99**2 + 1))


def test_fewer_steps_start_at_the_end_of_the_chain() -> None:
    assert schedule().timesteps(15) == list(range(15, 0, -1))
    assert schedule().timesteps(5) == [15, 12, 9, 6, 3]
    assert schedule().timesteps(1) == [15]
    assert schedule(4, 0.2).timesteps(3) == [4, 3, 1]


@pytest.mark.parametrize("change", [{"T": 1}, {"m": 0.0}, {"m": 0.99}, {"p": 0.0}, {"kappa": -1.0}])
def test_a_schedule_that_is_none_is_the_users_mistake(change: dict[str, float]) -> None:
    with pytest.raises(UserError, match="make no schedule: T must be at least 2"):
        ShiftSchedule(**{"T": 15, "m": 0.04, "p": 0.3, "kappa": 2.0} | change)  # type: ignore[arg-type]
