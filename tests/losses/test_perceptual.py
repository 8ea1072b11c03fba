"""ST-LPIPS against the released package's figures, LPIPS against the package lpips, and what both promise as loss terms."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossInputs
from osediff_exp.losses.lpips import LPIPSLoss
from osediff_exp.losses.st_lpips import STLPIPSLoss
from osediff_exp.metrics.st_lpips import STLPIPS
from osediff_exp.models import perceptual
from osediff_exp.models.perceptual import PerceptualDistance, lpips_distance, st_lpips_distance

if TYPE_CHECKING:
    from collections.abc import Iterator

CONF = Path(__file__).parents[2] / "conf" / "loss" / "terms"

# Computed once with stlpips_pytorch 0.0.2's own forward (variant shift_tolerant) on wave_pair(height, width).
GOLDEN = [
    ("alex", 64, 64, 0.06377176195383072),
    ("alex", 65, 93, 0.09633014351129532),
    ("vgg", 64, 64, 0.11126284301280975),
    ("vgg", 65, 93, 0.1400151550769806),
]


def wave_pair(height: int, width: int) -> tuple[Tensor, Tensor]:
    y, x = torch.arange(height).view(-1, 1) / height, torch.arange(width).view(1, -1) / width
    first = [torch.sin(9 * x + 4 * y), torch.cos(7 * y - 5 * x), torch.sin(11 * x * y)]
    second = [torch.sin(9 * x + 4 * y + 0.3), torch.cos(6 * y - 5 * x), torch.sin(12 * x * y)]
    return torch.stack(first)[None], torch.stack(second)[None]


def loss_inputs(output: Tensor, target: Tensor) -> LossInputs:
    nothing = torch.empty(0)
    return LossInputs(
        output=output, target=target, latent=nothing, prompt_embeds=nothing, negative_embeds=nothing, seed=0, step=0, indices=[0]
    )


@pytest.fixture(scope="module")
def alex() -> PerceptualDistance:
    return st_lpips_distance("alex")


@pytest.mark.parametrize(("net", "height", "width", "expected"), GOLDEN)
def test_st_lpips_gives_the_released_figures(net: str, height: int, width: int, expected: float) -> None:
    assert st_lpips_distance(net)(*wave_pair(height, width)).item() == pytest.approx(expected, abs=1e-6)


def test_st_lpips_is_a_symmetric_distance_per_sample(alex: PerceptualDistance) -> None:
    x, y = wave_pair(48, 40)
    both = alex(torch.cat([x, x]), torch.cat([y, x]))
    assert both.shape == (2,)
    assert both[1].item() == 0
    assert both[0].item() == pytest.approx(alex(y, x).item(), rel=1e-5)


def test_the_metric_takes_images_in_0_1(alex: PerceptualDistance) -> None:
    x, y = wave_pair(48, 48)
    metric = STLPIPS()
    metric.update((x + 1) / 2, (y + 1) / 2)
    assert metric.compute().item() == pytest.approx(alex(x, y).item(), rel=1e-4)


def test_only_the_output_gets_a_gradient_and_following_it_lowers_the_loss() -> None:
    term = STLPIPSLoss(weight=2.0).train()
    output, target = (image.requires_grad_() for image in wave_pair(48, 48))
    loss = term(loss_inputs(output, target)).loss
    loss.backward()
    assert target.grad is None
    assert all(not weight.requires_grad and weight.grad is None for weight in term.parameters())
    assert output.grad is not None
    assert output.grad.abs().max() > 0
    step = 1e-3 * output.grad / output.grad.abs().max()
    assert term(loss_inputs(output.detach() - step, target)).loss < loss


def test_it_stays_in_evaluation_mode_whatever_the_trainer_says() -> None:
    term = STLPIPSLoss(weight=1.0).train()
    assert not any(module.training for module in term.distance.modules())


def test_the_gradient_is_finite_where_all_features_are_zero() -> None:
    class OneLayer(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [x.relu()]

    one = torch.ones(1, 3, 1, 1)
    distance = PerceptualDistance(trunk=OneLayer(), heads=[one], shift=0 * one, scale=one)
    output = torch.full((1, 3, 32, 32), -1.0, requires_grad=True)
    distance(output, torch.ones(1, 3, 32, 32)).sum().backward()
    assert output.grad is not None
    assert torch.equal(output.grad, torch.zeros_like(output))


def test_small_crops_are_refused_in_words(alex: PerceptualDistance) -> None:
    with pytest.raises(UserError, match="at least 32 x 32 px"):
        alex(torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 31, 64))


@pytest.mark.parametrize("build", [st_lpips_distance, lpips_distance])
def test_an_unknown_network_names_the_nearest(build: object) -> None:
    with pytest.raises(UserError, match="Did you mean 'alex'"):
        build("alexnet")  # type: ignore[operator]


def test_missing_st_lpips_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install stlpips_pytorch"):
        st_lpips_distance("alex")


def test_the_weights_package_is_not_imported(alex: PerceptualDistance) -> None:
    assert "stlpips_pytorch" not in sys.modules


def test_the_term_files_take_lambda1() -> None:
    register_resolvers()
    recipe = {"lambda1": 3.0, "backbone": {"recipe": {"lambda1_scale": 0.5}}}
    config = OmegaConf.merge(recipe, {"terms": OmegaConf.load(CONF / "st_lpips.yaml")})
    term = instantiate(config.terms.st_lpips)
    assert isinstance(term, STLPIPSLoss)
    assert term.weight == 1.5
    lpips_file = OmegaConf.load(CONF / "lpips.yaml").lpips
    assert lpips_file._target_ == f"{LPIPSLoss.__module__}.{LPIPSLoss.__qualname__}"
    assert lpips_file.net == "vgg"


# --- LPIPS: the trunk's weights are a download, so a random state takes their place ---------------------------------------------------


@pytest.fixture
def random_alexnet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("lpips", reason="needs the package lpips")
    from torchvision.models import _api, alexnet

    with torch.device("meta"):
        shapes = {name: value.shape for name, value in alexnet().state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {
        name: 0.1 * torch.randn(shape, generator=generator) if name.startswith("features") else torch.zeros(()).expand(shape)
        for name, shape in shapes.items()
    }
    monkeypatch.setattr(_api, "load_state_dict_from_url", lambda *args, **kwargs: state)
    return


@pytest.mark.usefixtures("random_alexnet")
def test_lpips_equals_the_package_and_keeps_dropout_off() -> None:
    import lpips

    with warnings.catch_warnings(action="ignore"):  # lpips calls torchvision in a deprecated way
        reference = lpips.LPIPS(net="alex", verbose=False)
    term = LPIPSLoss(weight=2.0, net="alex").train()
    output, target = wave_pair(64, 80)
    output.requires_grad_()
    loss = term(loss_inputs(output, target)).loss
    assert loss.item() == pytest.approx(reference(output, target).item(), rel=1e-5)
    loss.backward()
    assert output.grad is not None
    assert output.grad.abs().max() > 0
    assert all(not weight.requires_grad for weight in term.parameters())


def test_a_trunk_out_of_reach_says_where_to_put_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("lpips", reason="needs the package lpips")
    from torchvision.models import _api

    def no_network(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(_api, "load_state_dict_from_url", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError) as caught:
        lpips_distance("alex")
    message = str(caught.value)
    assert f"alexnet-owt-7be5be79.pth into {tmp_path / 'checkpoints'}" in message
    assert "loss/terms=[mse,st_lpips,vsd]" in message
    assert "\n" not in message


def test_without_the_package_the_way_to_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(UserError, match="pip install lpips"):
        LPIPSLoss(weight=1.0, net="alex")


def test_recomputed_activations_give_the_same_loss_and_gradient_from_less_memory() -> None:
    output, target = wave_pair(64, 64)
    kept: list[int] = []
    results = []
    for recompute in (False, True):
        term = STLPIPSLoss(weight=1.0, gradient_checkpointing=recompute)
        picture = output.clone().requires_grad_()
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            loss = term(loss_inputs(picture, target)).loss
        kept.append(sum(saved))
        loss.backward()
        results.append((loss.detach(), picture.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert kept[1] < kept[0] / 20
