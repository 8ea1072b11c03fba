"""Which picture a training is told about, what it remembers of it, and how prompts are composed from a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from tiny_parts import make_data, make_module, make_trainer
from torch import Tensor

from osediff_exp.checkpoints.build import prompts_maker
from osediff_exp.data.others import WithOther
from osediff_exp.data.photo_files import PhotoFile
from osediff_exp.data.sidecar import SidecarPrompt
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.prompt_cache.feature_store import FeatureStore
from osediff_exp.models.prompts import FixedPrompt, PromptExtractor
from osediff_exp.module.prompting import BatchPrompts
from osediff_exp.tasks.prompting import build_prompts

CONF = Path(__file__).parents[1] / "conf"


def configuration(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


class Mean(PromptExtractor):
    """Says how bright a picture is, and its size."""

    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        return [f"{name} {float(image.mean()):.1f} {image.shape[-1]}" for name, image in zip(names, images, strict=True)]


BATCH = {
    "hq": torch.full((2, 3, 8, 8), 0.2),
    "lq": torch.full((2, 3, 8, 8), 0.7),
    "name": ["a", "b"],
    "path": ["a.png", "b.png"],
    "other": {
        "hq": torch.full((2, 3, 8, 8), 0.3),
        "lq": torch.full((2, 3, 8, 8), 0.8),
        "name": ["c", "d"],
        "path": ["c.png", "d.png"],
    },
}
OWN = {key: value for key, value in BATCH.items() if key != "other"}


def test_training_is_told_about_hq_and_testing_about_lq_unless_keys_say_otherwise() -> None:
    paper, turned = BatchPrompts(Mean()), BatchPrompts(Mean(), train_image="lq", test_image="hq")
    assert (paper.training(OWN), paper.testing(OWN)) == (["a 0.2 8", "b 0.2 8"], ["a 0.7 8", "b 0.7 8"])
    assert (turned.training(OWN), turned.testing(OWN)) == (["a 0.7 8", "b 0.7 8"], ["a 0.2 8", "b 0.2 8"])
    assert (paper.training(BATCH), paper.testing(BATCH)) == (["c 0.3 8", "d 0.3 8"], ["c 0.8 8", "d 0.8 8"])
    with pytest.raises(UserError, match=r"prompt\.train_image=photos is unknown.*Did you mean 'photo'"):
        BatchPrompts(Mean(), train_image="photos")


def test_the_whole_photo_may_be_told_about(tmp_path: Path) -> None:
    data = make_data(tmp_path / "photos", batch_size=2)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    prompts = BatchPrompts(Mean(), train_image="photo").training(batch)
    expected = [f"{Path(path).stem} {float(PhotoFile(Path(path)).load().mean()):.1f} 48" for path in batch["path"]]
    assert prompts == expected


def test_prompts_of_others_are_the_same_prompts_in_other_places() -> None:
    stream, pictures = WithOther(range(1000, 2000)), WithOther([{"k": k} for k in range(5)], length=5)
    assert [stream.samples[i ^ 1] for i in range(4)] == [1001, 1000, 1003, 1002]
    others = [pictures[k]["other"]["k"] for k in range(5)]
    assert sorted(others) == [0, 1, 2, 3, 4]
    assert all(k != other for k, other in enumerate(others))


def test_the_data_bring_another_picture_where_wrong_words_are_asked_for(tmp_path: Path) -> None:
    data = make_data(tmp_path / "photos", batch_size=2)
    data.with_other = True
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch["other"]["hq"], batch["hq"].flip(0))  # samples 0 and 1 change places
    names = [(batch["name"][0], batch["other"]["name"][0]) for batch in data.val_dataloader()]
    assert sorted(other for _, other in names) == sorted(name for name, _ in names)
    assert all(name != other for name, other in names)


# ---- from a configuration, and from a checkpoint's


def from_checkpoint(config: DictConfig) -> PromptExtractor:
    return prompts_maker({"prompt": OmegaConf.to_container(config.prompt, resolve=True)})()


@pytest.mark.parametrize(("words", "text"), [("fixed", "clean, sharp"), ("none", "")])
def test_constant_words_need_nothing_of_the_source(words: str, text: str) -> None:
    config = configuration("prompt=ram", "prompt.weights=/nowhere.pth", f"prompt.words={words}", "prompt.positive='clean, sharp'")
    for prompts in (build_prompts(config), from_checkpoint(config)):
        assert isinstance(prompts, FixedPrompt)
        assert prompts.prompt == text


def test_every_source_composes_and_a_checkpoint_builds_it_again(tmp_path: Path) -> None:
    (tmp_path / "tags.csv").write_text("name,tags\ncat,fur\n")
    config = configuration("prompt=sidecar", f"prompt.file={tmp_path}/tags.csv", "prompt.prefix=photo", "prompt.suffix=sharp")
    for prompts in (build_prompts(config), from_checkpoint(config)):
        assert isinstance(prompts, SidecarPrompt)
        assert prompts(torch.zeros(1, 3, 4, 4), ["cat"]) == ["photo, fur, sharp"]
    for source in ("none", "fixed", "tagged", "ram", "captioner", "sidecar"):
        composed = configuration(f"prompt={source}").prompt
        assert {"words", "train_image", "test_image", "cache", "positive", "negative", "reads"} <= composed.keys()


def test_checkpoints_from_before_these_keys_are_built_as_ever() -> None:
    fixed = {"extractor": {"_target_": "osediff_exp.models.prompts.FixedPrompt", "prompt": "sharp"}, "positive": "x", "negative": "y"}
    prompts = prompts_maker({"prompt": fixed})()
    assert isinstance(prompts, FixedPrompt)
    assert prompts.prompt == "sharp"


# ---- in a training


def test_the_negative_prompt_is_encoded_once_per_run_and_by_no_later_run(
    backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    monkeypatch.setattr(
        Backbone, "encode_prompts", lambda self, texts, encode=Backbone.encode_prompts: encoded.extend(texts) or encode(self, texts)
    )

    def train() -> dict[str, float | int | None]:
        module = make_module(
            backbone, prompts=Mean(), open_features=lambda: FeatureStore(tmp_path, encoder=backbone.text_encoder_key(), limit_gib=1)
        )
        make_trainer(tmp_path).fit(module, make_data(tmp_path / "photos", batch_size=2))
        return module.prompt_figures()

    first, second = train(), train()
    assert encoded.count("blurry drawing") == 1
    assert len(encoded) == len(set(encoded)) == first["text_cache_misses"]
    assert second["text_cache_misses"] == 0
    assert second["text_cache_hits"] == first["text_cache_hits"] + first["text_cache_misses"]  # type: ignore[operator]
