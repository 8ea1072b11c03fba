"""RAM's files: what is read, what is left out, and one line for what is wrong."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from ram_parts import TAGS, random_lora, random_weights, write_ram
from safetensors.torch import save_file
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models.taggers.cached import CachedTagger
from osediff_exp.models.taggers.ram.layout import build_ram, read_tensors, sort_keys
from osediff_exp.models.taggers.ram.prompt import RAMPrompt
from osediff_exp.models.taggers.ram.tag_list import TagList, read_tag_list
from osediff_exp.models.taggers.ram.tagger import RAMTagger

PICTURES = torch.rand(3, 3, 20, 30, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ram(tmp_path_factory.mktemp("ram"))


def prompt(files: Path, **settings: object) -> RAMPrompt:
    return RAMPrompt(**{"prompt": "", "weights": str(files / "ram_swin_large_14m.pth"), "image_size": 32} | settings)  # type: ignore[arg-type]


def test_every_tensor_is_accounted_for_and_the_captioner_is_named(caplog: pytest.LogCaptureFixture) -> None:
    weights = random_weights()
    captioner = {"tag_encoder.encoder.layer.0.output.dense.bias": torch.zeros(1), "text_decoder.cls.predictions.bias": torch.zeros(1)}
    buffers = {
        "visual_encoder.layers.0.blocks.1.attn_mask": torch.zeros(1),
        "visual_encoder.layers.0.blocks.0.attn.relative_position_index": torch.zeros(1),
    }
    with caplog.at_level(logging.INFO, logger="osediff_exp"):
        found = sort_keys(weights | captioner | buffers | random_lora(), "FILE")
    assert found.tagging.keys() == weights.keys()
    assert found.lora.keys() == random_lora().keys()
    assert found.left_out == {"tag_encoder": 1, "text_decoder": 1}
    assert "left out, no part of tagging: tag_encoder (1 tensors), text_decoder (1 tensors)" in caplog.text


def test_wrappers_formats_and_old_names_are_read_alike(tmp_path: Path) -> None:
    weights = random_weights()
    torch.save({"model": weights, "epoch": 3}, tmp_path / "a.pth")
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    torch.save({name.replace("tagging_head", "vision_multi"): value for name, value in weights.items()}, tmp_path / "c.pth")
    save_file(weights, tmp_path / "d.safetensors")
    for path in sorted(tmp_path.iterdir()):
        found = read_tensors(path)
        assert found.keys() == weights.keys()
        assert all(torch.equal(found[name], weights[name]) for name in weights)


class Code:
    """Runs when it is unpickled, if it is."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, ("ran",)  # type: ignore[return-value]


def test_code_in_a_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": random_weights(), "extra": Code()}, "bad.pth")
    with pytest.raises(UserError, match=r"bad\.pth cannot be read as weights"):
        read_tensors(Path("bad.pth"))
    assert not Path("ran").exists()


def broken(**changes: Tensor | None) -> dict[str, Tensor]:
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    return {name: value for name, value in (random_weights() | changed).items() if value is not None}


@pytest.mark.parametrize(
    ("weights", "lora", "message"),
    [
        (broken(fc__bias=None), None, r"1 tensors are missing \(fc\.bias\)"),
        (broken(fc__weight=None), None, r"no weights of RAM: fc\.weight is missing"),
        (broken(tagging_head__extra=torch.zeros(1)), None, r"1 are unknown \(tagging_head\.extra\)"),
        (broken(wordvec_proj__bias=torch.zeros(3)), None, r"1 have another shape \(wordvec_proj\.bias\)"),
        (broken(reweight_scale=torch.zeros(1)), None, r"RAM\+\+"),
        (random_lora(), None, "give ram_swin_large_14m.pth"),
        (random_weights(), random_weights(), "hold no LoRA of the tagger"),
        (random_weights(), {"visual_encoder.layers.7.blocks.0.attn.qkv.lora_A": torch.zeros(16, 8)}, "lacks lora_B"),
    ],
)
def test_wrong_weights_are_one_clear_line(weights: dict[str, Tensor], lora: dict[str, Tensor] | None, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build_ram(weights, lora, image_size=32)
    assert "\n" not in str(caught.value)


def test_missing_weights_name_the_places_and_the_nearest_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSEDIFF_WEIGHTS", str(files))
    with pytest.raises(
        UserError, match=r"prompt\.weights=ram_swin_large.pth is not in .*OSEDIFF_WEIGHTS.*Did you mean 'ram_swin_large_14m\.pth'"
    ):
        RAMPrompt(prompt="", weights="ram_swin_large.pth")


def test_a_bare_name_and_a_path_of_another_machine_are_found_where_weights_are_kept(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSEDIFF_WEIGHTS", str(files))
    for weights in ("ram_swin_large_14m.pth", "/elsewhere/ram_swin_large_14m.pth"):
        assert len(prompt(files, weights=weights)(PICTURES, ["a", "b", "c"])) == 3


def test_a_tag_list_of_the_wrong_length_names_both_numbers(files: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"ram_tag_list_threshold\.txt has 6 lines, .*short\.txt 2"):
        prompt(files, tag_list=str(tmp_path / "short.txt"))
    with pytest.raises(UserError, match=r"short\.txt has 2 tags, .*ram_swin_large_14m\.pth 6"):
        prompt(files, tag_list=str(tmp_path / "short.txt"), threshold=0.5)(PICTURES, ["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "message"), [("0.5\nhigh\n", "something else than a number"), ("", "no line"), ("1.5\n0.5\n", "outside 0 to 1")]
)
def test_damaged_thresholds_are_the_users(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "numbers.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_tag_list(tmp_path / "names.txt", tmp_path / "numbers.txt")


def test_a_tag_is_on_above_its_own_threshold_the_surest_first() -> None:
    tagger = RAMTagger(build_ram(random_weights(), image_size=32), TagList(TAGS, (0.9, 0.1, 0.5, 0.5, 0.5, 0.5)))
    logits = torch.tensor([[2.0, -2.0, 1.0, -1.0, 0.0, 3.0]])  # 0.88 (off: 0.9), 0.12, 0.73, 0.27 (off), 0.5 (off: not above), 0.95
    assert [tag.name for tag in tagger.tags_of(logits, 9)[0]] == ["tree", "dog", "cat"]
    assert [tag.name for tag in tagger.tags_of(logits, 1)[0]] == ["tree"]


def test_image_embeddings_are_had_of_pictures_of_any_size() -> None:
    tagger = RAMTagger(build_ram(random_weights(), image_size=32), TagList(TAGS, (0.5,) * 6))
    assert torch.equal(tagger.image_embeds(PICTURES), tagger.look(tagger.prepare(PICTURES)).image_embeds)
    assert tagger.image_embeds(PICTURES).shape == (3, 17, 12)


def test_the_prompt_has_the_lists_order_as_released_or_the_surest_first(files: Path) -> None:
    listed, sure = (prompt(files, threshold=0.0, order=order, prefix="photo of", prompt="sharp") for order in ("list", "score"))
    assert listed(PICTURES, ["a", "b", "c"]) == [", ".join(["photo of", *TAGS, "sharp"])] * 3
    assert isinstance(sure.tagger, CachedTagger)
    (expected, *_) = sure.tagger.tagger(PICTURES, 9)
    assert sure(PICTURES, ["a", "b", "c"])[0] == ", ".join(["photo of", *(tag.name for tag in expected), "sharp"])


def test_ram_tags_in_training_and_dape_in_use_unless_a_key_says_otherwise(files: Path) -> None:
    ram, dape = prompt(files), prompt(files, lora=str(files / "DAPE.pth"))
    assert isinstance(dape.in_training, RAMPrompt)
    names = ["a", "b", "c"]
    assert dape.in_training(PICTURES, names) == ram(PICTURES, names) == ram.in_training(PICTURES, names)
    assert dape.in_training.tagger.fingerprint == ram.tagger.fingerprint != dape.tagger.fingerprint  # type: ignore[attr-defined]
    dape(PICTURES, names)
    assert dape.figures()["tag_cache_misses"] == 6
    always = prompt(files, lora=str(files / "DAPE.pth"), train_lora=True)
    assert always.in_training is always


def test_dape_is_another_tagger_than_ram(files: Path) -> None:
    fingerprints = {
        prompt(files, **settings).tagger.fingerprint  # type: ignore[attr-defined]
        for settings in ({}, {"lora": str(files / "DAPE.pth")}, {"threshold": 0.4}, {"dtype": "bfloat16"}, {"antialias": False})
    }
    assert len(fingerprints) == 5
    assert prompt(files, max_tags=2, order="score", prefix="x").tagger.fingerprint in fingerprints  # type: ignore[attr-defined]
