"""The metrics with networks: FID's formula and input, the adapter of pyiqa, and what is said where weights cannot be had."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from scipy.linalg import sqrtm
from torch import Tensor, nn

from osediff_exp.cli.targets import target_problem
from osediff_exp.errors import UserError
from osediff_exp.metrics.dists import DISTS
from osediff_exp.metrics.external import pyiqa_network, weights_of
from osediff_exp.metrics.fid import FID, SIZE, frechet_distance, inception_input
from osediff_exp.metrics.pyiqa_metrics import PyiqaMetric

CONF = Path(__file__).parents[2] / "conf"


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [(200, 150), (12, 9), (40, 6)], ids=["more rows than features", "fewer", "mixed"])
def test_frechet_distance_is_that_of_the_matrix_root(rows: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows[0], 16)), 1.5 * rng.normal(size=(rows[1], 16)) + 0.3
    # sqrt of C_x C_y through symmetric roots, which stays exact where the product is singular
    covariance_x, covariance_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    values, vectors = np.linalg.eigh(covariance_x)
    half = vectors * np.sqrt(values.clip(0)) @ vectors.T
    root = np.sqrt(np.linalg.eigvalsh(half @ covariance_y @ half).clip(0)).sum()
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(covariance_x) + np.trace(covariance_y) - 2 * root
    ours = frechet_distance(torch.from_numpy(x), torch.from_numpy(y)).item()
    assert ours == pytest.approx(expected, rel=1e-6)
    if min(rows) > 16:
        assert root == pytest.approx(np.trace(sqrtm(covariance_x @ covariance_y)).real)


def test_frechet_distance_in_closed_form() -> None:
    x = random(50, 8).double()
    assert frechet_distance(x, x).item() == pytest.approx(0, abs=1e-10)
    assert frechet_distance(x, x + 2).item() == pytest.approx(8 * 4)
    # scaling by s: (s - 1)^2 (|m|^2 + Tr C)
    expected = 4 * (x.mean(0).square().sum() + torch.trace(torch.cov(x.T))).item()
    assert frechet_distance(x, 3 * x).item() == pytest.approx(expected)
    assert frechet_distance(x[:1], x).isnan()


def test_inception_input_is_centred_8_bit_and_antialiased() -> None:
    assert torch.equal(inception_input(torch.zeros(1, 3, 40, 60)), torch.full((1, 3, SIZE, SIZE), -1.0))
    grey = inception_input(torch.full((2, 3, 500, 700), 0.5))  # 127.5 is rounded to 128, the centre
    assert grey.shape == (2, 3, SIZE, SIZE)
    assert grey.abs().max() < 1e-5
    stripes = torch.zeros(1, 3, 8 * SIZE, 8 * SIZE)
    stripes[..., ::2] = 1.0
    assert (inception_input(stripes)[..., 4:-4] + 0.5 / 128).abs().max() < 1e-3  # averaged away, no moire


def test_fid_of_folders_does_not_depend_on_how_they_are_batched() -> None:
    class Means(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([images.mean(dim=(2, 3)), images.std(dim=(2, 3))], dim=1)

    pred, target = random(6, 3, 20, 24), random(6, 3, 20, 24, seed=1)
    together, alone = FID(features=Means()), FID(features=Means())
    together.update(pred, target)
    for k in range(6):
        alone.update(pred[k : k + 1], target[k : k + 1])
    assert together.compute() > 0
    assert together.compute() == pytest.approx(alone.compute())
    same = FID(features=Means())
    same.update(pred, pred)
    assert same.compute() == pytest.approx(0, abs=1e-6)


class FakeNetwork(nn.Module):
    """Answers like pyiqa's wrapper: (B, 1), and refuses what lies outside [0, 1]."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.metric_mode = mode
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, image: Tensor, reference: Tensor | None = None) -> Tensor:
        assert image.min() >= 0
        assert image.max() <= 1
        assert (reference is not None) == (self.metric_mode == "FR")
        return (self.weight * (image if reference is None else (image - reference).abs())).mean(dim=(1, 2, 3))[:, None]


@pytest.fixture
def fake_pyiqa(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package pyiqa whose create_metric is whatever stands under ``create``."""
    made: dict[str, Any] = {"create": lambda name, device: FakeNetwork("FR" if name == "dists" else "NR").train()}
    module = ModuleType("pyiqa")
    module.list_models = lambda: ["dists", "musiq", "maniqa-pipal", "fid"]  # type: ignore[attr-defined]
    module.create_metric = lambda name, device: made["create"](name, device)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pyiqa", module)
    return made


@pytest.mark.usefixtures("fake_pyiqa")
def test_pyiqas_scores_are_per_picture_with_and_without_a_reference() -> None:
    pred, target = random(3, 3, 32, 40), random(3, 3, 32, 40, seed=1)
    musiq, dists = PyiqaMetric(name="musiq"), PyiqaMetric(name="dists")
    torch.testing.assert_close(musiq.per_image(pred, target), pred.double().mean(dim=(1, 2, 3)), check_dtype=False, rtol=1e-5, atol=0)
    assert musiq.per_image(pred + 1, target).tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(dists.per_image(pred, target), (pred - target).abs().mean(dim=(1, 2, 3)).double(), rtol=1e-5, atol=0)
    musiq.update(pred, target)
    assert musiq.compute() == pytest.approx(pred.mean().item(), rel=1e-5)
    assert not any(parameter.requires_grad for parameter in musiq.parameters())
    assert not musiq.network.training
    with pytest.raises(UserError, match="musiq needs images of at least 32 x 32 px"):
        musiq.per_image(pred[..., :31], target[..., :31])


def test_what_goes_wrong_while_a_network_is_built_is_one_line_with_a_remedy(fake_pyiqa: dict[str, Any]) -> None:
    def refuse(error: Exception) -> Any:
        def create(name: str, device: torch.device) -> None:
            raise error

        return create

    fake_pyiqa["create"] = refuse(OSError("no route\nto host"))
    with pytest.raises(UserError, match=r"the weights of musiq cannot be loaded \(OSError no route to host\): run once with a network"):
        PyiqaMetric(name="musiq")
    fake_pyiqa["create"] = refuse(ModuleNotFoundError("No module named 'timm'"))
    with pytest.raises(UserError, match=r"maniqa-pipal needs a package .*'timm'.*osediff-exp\[iqa\]"):
        PyiqaMetric(name="maniqa-pipal")
    with pytest.raises(UserError, match="pyiqa has no metric 'music'. Did you mean 'musiq'?"):
        pyiqa_network("music")


@pytest.mark.skipif(importlib.util.find_spec("pyiqa") is not None, reason="pyiqa is installed")
@pytest.mark.parametrize("build", [lambda: PyiqaMetric(name="clipiqa"), FID], ids=["clipiqa", "fid"])
def test_without_pyiqa_the_extra_and_its_licence_are_named(build: Any) -> None:
    with pytest.raises(UserError, match=r"needs the package pyiqa: pip install osediff-exp\[iqa\] .*PolyForm Noncommercial"):
        build()


def test_fid_takes_pyiqas_pooled_features(fake_pyiqa: dict[str, Any]) -> None:
    class Inception(nn.Module):
        def forward(self, images: Tensor, resize: bool, normalize: bool) -> list[Tensor]:
            assert (resize, normalize, images.shape[2:]) == (False, False, (SIZE, SIZE))
            return [images.mean(dim=(2, 3), keepdim=True)]

    def create(name: str, device: torch.device) -> nn.Module:
        wrapper = nn.Module()
        wrapper.net = nn.Module()
        wrapper.net.model = Inception()
        return wrapper

    fake_pyiqa["create"] = create
    metric, images = FID(), random(4, 3, 30, 30)
    metric.update(images, 1 - images)
    assert [rows.shape for rows in metric.rows] == [(1, 6)] * 4
    assert metric.compute() > 0


def test_weights_of_leaves_the_socket_timeout_as_it_was() -> None:
    import socket

    before = socket.getdefaulttimeout()
    with pytest.raises(UserError, match="ValueError"), weights_of("x"):
        raise ValueError("damaged")
    assert socket.getdefaulttimeout() == before


def test_dists_of_equal_pictures_is_zero_and_grows_with_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    dists = pytest.importorskip("torchmetrics.functional.image.dists")
    vgg = pytest.importorskip("torchvision.models.vgg")
    torch.manual_seed(0)
    layers = vgg.make_layers(vgg.cfgs["D"])  # VGG16's; its weights are a download
    monkeypatch.setattr(dists, "vgg16", lambda weights: SimpleNamespace(features=layers))
    metric, target = DISTS(), random(1, 3, 40, 32)
    near, far = (0.9 * target + 0.1 * random(1, 3, 40, 32, seed=1), random(1, 3, 40, 32, seed=1) ** 3)
    scores = metric.per_image(torch.cat([target, near, far]), torch.cat([target] * 3))
    assert scores.shape == (3,)
    assert scores[0] == pytest.approx(0, abs=1e-5)
    assert scores[0] < scores[1] < scores[2] < 1
    assert metric.per_image(near, target).item() == pytest.approx(scores[1].item(), abs=1e-6)


def test_metrics_full_has_the_columns_of_the_published_tables_and_real_targets() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        metrics = compose("config", ["task=score", "pred=a", "gt=b", "metrics=full"]).metrics
    assert list(metrics) == ["psnr", "ssim", "niqe", "lpips", "dists", "fid", "musiq", "maniqa", "clipiqa"]
    assert all(target_problem(node._target_) is None for node in metrics.values())
    assert (metrics.lpips.net, metrics.maniqa.name) == ("alex", "maniqa-pipal")


def test_the_saved_picture_and_its_tensor_have_the_same_inception_input(tmp_path: Path) -> None:
    image = random(1, 3, 33, 47)
    bytes_ = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(bytes_).save(tmp_path / "a.png")
    saved = torch.from_numpy(np.array(Image.open(tmp_path / "a.png"))).permute(2, 0, 1)[None] / 255
    assert torch.equal(inception_input(saved), inception_input(image))
