"""Edge maps in closed form, the edge-aware perceptual term, and DISTS behind its optional package."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossInputs
from osediff_exp.losses.dists import DISTSLoss
from osediff_exp.losses.edge_st_lpips import EdgeSTLPIPSLoss
from osediff_exp.losses.edges import edge_map
from osediff_exp.models.perceptual import st_lpips_distance


def pictures(side: int = 40) -> LossInputs:
    generator = torch.Generator().manual_seed(0)
    output, target = (torch.rand(2, 3, side, side, generator=generator) * 2 - 1 for _ in range(2))
    nothing = torch.empty(0)
    return LossInputs(
        output=output.requires_grad_(),
        target=target.requires_grad_(),
        latent=nothing,
        prompt_embeds=nothing,
        negative_embeds=nothing,
        seed=0,
        step=0,
        indices=[0, 1],
    )


def test_a_flat_picture_has_no_edges_and_a_finite_gradient() -> None:
    image = torch.full((1, 3, 6, 6), 0.3, dtype=torch.float64, requires_grad=True)
    edges = edge_map(image)
    assert torch.allclose(edges, -torch.ones_like(edges))
    edges.sum().backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()


@pytest.mark.parametrize("transposed", [False, True])
def test_a_step_from_black_to_white_is_a_full_edge(transposed: bool) -> None:
    image = torch.full((1, 3, 6, 8), -1.0, dtype=torch.float64)
    image[..., 4:] = 1.0
    edges = edge_map(image.transpose(2, 3) if transposed else image)
    edges = edges.transpose(2, 3) if transposed else edges
    assert torch.allclose(edges[..., 3:5], torch.ones((), dtype=torch.float64))
    assert torch.allclose(edges[..., [0, 1, 2, 5, 6, 7]], -torch.ones((), dtype=torch.float64))


def test_a_ramp_has_its_slopes_length() -> None:
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    edges = edge_map((0.03 * x + 0.04 * y).double().expand(1, 3, 8, 8))
    assert torch.allclose(edges[..., 1:-1, 1:-1], torch.tensor(2 * 0.05 - 1).double())  # a Sobel kernel / 8 gives the slope per pixel


def test_the_edge_term_is_two_distances() -> None:
    inputs, distance = pictures(), st_lpips_distance("alex")
    output = EdgeSTLPIPSLoss(weight=1.0, edge_weight=0.25)(inputs)
    plain, edges = distance(inputs.output, inputs.target), distance(edge_map(inputs.output), edge_map(inputs.target))
    assert output.loss.item() == pytest.approx((plain + 0.25 * edges).mean().item(), rel=1e-6)
    assert torch.allclose(output.logs["edges"], edges)
    assert EdgeSTLPIPSLoss(weight=1.0, edge_weight=0.0)(inputs).loss.item() == pytest.approx(plain.mean().item(), rel=1e-6)


def test_the_edge_terms_gradient_reaches_the_output_only() -> None:
    inputs, term = pictures(), EdgeSTLPIPSLoss(weight=1.0)
    term(inputs).loss.backward()
    assert inputs.output.grad is not None
    assert inputs.output.grad.abs().max() > 0
    assert inputs.target.grad is None
    assert all(parameter.grad is None for parameter in term.parameters())


# ---- DISTS: its weights are a download, so a stand-in of the package takes its place


class MeanSquare(nn.Module):
    """A distance on [0, 1] pictures with one weight, as pyiqa builds it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        assert min(output.min(), target.min()) >= 0
        assert max(output.max(), target.max()) <= 1
        return self.weight * (output - target).square().mean()


def test_dists_sees_pictures_and_edges_in_its_range(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def create(*args: Any, **settings: Any) -> MeanSquare:
        asked.append((args, settings))
        return MeanSquare()

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create))
    inputs, term = pictures(), DISTSLoss(weight=1.0, edge_weight=0.5).train()
    assert asked == [(("dists",), {"as_loss": True, "device": "cpu"})]
    assert not term.distance.training
    loss = term(inputs).loss
    edges = (edge_map(inputs.output).clamp(max=1) - edge_map(inputs.target).clamp(max=1)) / 2
    expected = ((inputs.output - inputs.target) / 2).square().mean() + 0.5 * edges.square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    loss.backward()
    assert inputs.output.grad is not None
    assert inputs.target.grad is None
    assert term.distance.weight.grad is None


def test_without_the_package_dists_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(UserError, match=r"pip install osediff-exp\[iqa\].*edge_st_lpips"):
        DISTSLoss(weight=1.0)


def test_weights_out_of_reach_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(*args: Any, **settings: Any) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create))
    with pytest.raises(UserError, match="DISTS' weights could not be loaded") as caught:
        DISTSLoss(weight=1.0)
    assert "\n" not in str(caught.value)
