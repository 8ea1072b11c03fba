"""Tags and text features are paid once, by whichever process, and never served to another tagger or text encoder."""

from __future__ import annotations

import logging
import multiprocessing
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.prompt_cache import feature_store, fingerprints
from osediff_exp.models.prompt_cache.feature_store import FeatureStore
from osediff_exp.models.prompt_cache.fingerprints import picture_keys, weights_key
from osediff_exp.models.prompt_cache.tag_store import Entry, TagStore
from osediff_exp.models.prompt_features import PromptFeatures
from osediff_exp.models.taggers.base import Tag, Tagger
from osediff_exp.models.taggers.cached import CachedTagger

PICTURES = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 3, 4, 4)
SEA = Entry((Tag("sea", 0.9), Tag("sky", 0.5)), 0.25)


class Brightness(Tagger):
    """Tags a picture with its mean, and counts whom it was asked about."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, images: Tensor, max_tags: int) -> list[list[Tag]]:
        self.asked.append(len(images))
        return [[Tag(f"{float(image.mean()):.2f}", 0.9), Tag("grey", 0.5)][:max_tags] for image in images]


def cached(tmp_path: Path | None, **described: object) -> tuple[CachedTagger, Brightness]:
    tagger = Brightness()
    cache = None if tmp_path is None else str(tmp_path)
    return CachedTagger(lambda: tagger, described={"tagger": "brightness", **described}, asked=9, cache=cache), tagger


# ---- names of contents


def test_a_pictures_name_is_its_8_bit_pixels_and_its_shape() -> None:
    image = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)).mul(255).round().div(255)
    (name,) = picture_keys(image[None])
    assert picture_keys(torch.stack([image.double(), image + 0.3 / 255])) == [name, name]
    others = [image.flip(-1), image.reshape(3, 6, 4), (image * 255 + 1).clamp(max=255) / 255]
    assert len({name, *(picture_keys(other[None])[0] for other in others)}) == 4


@pytest.mark.parametrize("whole", [1 << 30, 0], ids=["read whole", "by the archive's checksums"])
def test_one_changed_weight_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    monkeypatch.setattr(fingerprints, "_WHOLE", whole)
    weights = {"a": torch.zeros(100, 100), "b": torch.ones(7)}
    torch.save(weights, tmp_path / "one.pth")
    shutil.copy(tmp_path / "one.pth", tmp_path / "copy.pth")
    weights["a"][50, 50] = 1e-3
    torch.save(weights, tmp_path / "other.pth")
    assert zipfile.is_zipfile(tmp_path / "one.pth")
    one, copy, other = (weights_key(tmp_path / f"{name}.pth") for name in ("one", "copy", "other"))
    assert one == copy != other


def test_large_files_that_are_no_archives_are_sampled_all_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_WHOLE", 0)
    monkeypatch.setattr(fingerprints, "_BLOCK", 16)
    content = bytearray(torch.arange(4096).to(torch.uint8).numpy().tobytes())
    keys = set()
    for place in (None, 0, 2048, 4095):
        changed = bytearray(content)
        if place is not None:
            changed[place] ^= 1
        (tmp_path / "weights.safetensors").write_bytes(changed)
        keys.add(weights_key(tmp_path / "weights.safetensors"))
    assert len(keys) == 4


# ---- tags on disk


def test_what_one_process_tags_the_next_one_knows(tmp_path: Path) -> None:
    first, asked = cached(tmp_path)
    answers = first(PICTURES, 1)
    assert (first.hits, first.misses, asked.asked) == (0, 5, [5])
    second, not_asked = cached(tmp_path)
    assert second(PICTURES, 1) == answers
    assert second(PICTURES, 2)[0] == [Tag("0.00", 0.9), Tag("grey", 0.5)]  # more than were wanted at first
    assert (second.hits, second.misses, not_asked.asked) == (10, 0, [])
    assert second.seconds == pytest.approx(2 * first.seconds, abs=1e-4)  # what tagging took when it was done


def test_only_unknown_pictures_are_asked_about_and_each_once(tmp_path: Path) -> None:
    tagger, asked = cached(tmp_path)
    tagger(PICTURES[:2], 1)
    answers = tagger(PICTURES[[1, 3, 3, 0, 4]], 1)
    assert asked.asked == [2, 2]
    assert [tags[0].name for tags in answers] == ["0.25", "0.75", "0.75", "0.00", "1.00"]
    assert (tagger.hits, tagger.misses) == (3, 4)


def test_another_tagger_is_never_served_and_is_told_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cached(tmp_path, weights="one")[0](PICTURES, 1)
    other, asked = cached(tmp_path, weights="two")
    with caplog.at_level(logging.WARNING, logger="osediff_exp"):
        other(PICTURES, 1)
    assert asked.asked == [5]
    assert "by other taggers or settings (brightness), not used" in caplog.text


def test_a_folder_that_another_tagger_wrote_is_refused(tmp_path: Path) -> None:
    store = TagStore(tmp_path, tagger="aa", described={"tagger": "RAM"})
    store.add({"x": SEA})
    (tmp_path / "tags" / "aa").rename(tmp_path / "tags" / "bb")
    with pytest.raises(UserError, match=r"was written by another tagger \({'tagger': 'RAM'}\): move it"):
        TagStore(tmp_path, tagger="bb", described={"tagger": "DAPE"})


def test_a_process_that_dies_in_the_middle_of_a_line_costs_that_line(tmp_path: Path) -> None:
    store = TagStore(tmp_path, tagger="aa", described={})
    store.add({"x": SEA, "y": SEA})
    (file,) = (tmp_path / "tags" / "aa").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-9])
    again = TagStore(tmp_path, tagger="aa", described={})
    assert again.get("x") == SEA
    assert again.get("y") is None
    again.add({"y": SEA})
    assert TagStore(tmp_path, tagger="aa", described={}).get("y") == SEA


def test_a_damaged_line_is_passed_by(tmp_path: Path) -> None:
    TagStore(tmp_path, tagger="aa", described={}).add({"x": SEA})
    (file,) = (tmp_path / "tags" / "aa").glob("*.jsonl")
    damaged = b'\x00\x00{"key"\n{"key": "z", "tags": [["sea"]], "seconds": 1}\n{"key": "w"}\n'
    file.write_bytes(file.read_bytes() + damaged)
    again = TagStore(tmp_path, tagger="aa", described={})
    assert [again.get(key) for key in ("x", "z", "w")] == [SEA, None, None]


def test_a_running_process_sees_what_another_writes(tmp_path: Path) -> None:
    mine, theirs = (TagStore(tmp_path, tagger="aa", described={}) for _ in range(2))
    mine.add({"x": SEA})
    theirs.add({"y": SEA})
    assert mine.get("y") is None
    mine.refresh()
    assert mine.get("y") == SEA
    theirs.add({"z": SEA})
    mine.refresh()
    assert mine.get("z") == SEA


def _write(root: Path, worker: int) -> None:
    store = TagStore(root, tagger="aa", described={})
    for k in range(200):
        store.add({f"{worker}-{k}": Entry((Tag("x" * (k % 50), 0.5),), 0.0)})


def test_processes_that_write_together_lose_nothing(tmp_path: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=_write, args=(tmp_path, k)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    found = TagStore(tmp_path, tagger="aa", described={})
    assert all(found.get(f"{worker}-{k}") == Entry((Tag("x" * (k % 50), 0.5),), 0.0) for worker in range(4) for k in range(200))


def test_without_a_place_to_write_a_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    tagger, asked = cached(tmp_path / "file")
    tagger(PICTURES, 1)
    tagger(PICTURES, 1)
    assert asked.asked == [5]
    assert "tags are not kept" in caplog.text
    unkept, asked = cached(None)
    unkept(PICTURES, 1)
    assert asked.asked == [5]


# ---- text features


class Encoder:
    """Encodes a text as its length, and counts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, prompts: list[str]) -> Tensor:
        self.texts += prompts
        return torch.stack([torch.full((2, 3), float(len(prompt)), dtype=torch.bfloat16) for prompt in prompts])


def features(root: Path, encode: Encoder, *, encoder: str = "one", limit_gib: float = 1.0) -> PromptFeatures:
    return PromptFeatures(encode, lambda: FeatureStore(root, encoder=encoder, limit_gib=limit_gib))


def test_a_text_is_encoded_once_for_all_runs_of_one_encoder(tmp_path: Path) -> None:
    encode = Encoder()
    first = features(tmp_path, encode)
    expected = first(["cat", "negative", "cat"])
    second = features(tmp_path, encode)
    found = second(["negative", "cat"])
    assert torch.equal(found, expected[[1, 0]])
    assert found.dtype == torch.bfloat16
    assert encode.texts == ["cat", "negative"]
    assert (first.hits, first.misses, second.hits, second.misses) == (0, 2, 2, 0)
    features(tmp_path, encode, encoder="two")(["cat"])
    assert encode.texts == ["cat", "negative", "cat"]


def test_a_constant_text_stays_whatever_comes_between() -> None:
    encode = Encoder()
    remembered = PromptFeatures(encode)
    for k in range(700):
        remembered([f"tags {k}", "negative"])
    assert encode.texts.count("negative") == 1
    assert len(remembered.known) <= 256


def test_damaged_features_are_encoded_again_and_a_full_folder_takes_no_more(tmp_path: Path) -> None:
    encode = Encoder()
    features(tmp_path, encode)(["cat"])
    (file,) = tmp_path.glob("features/one/*/*.safetensors")
    file.write_bytes(file.read_bytes()[:20])
    features(tmp_path, encode)(["cat"])
    assert encode.texts == ["cat", "cat"]
    features(tmp_path, encode, limit_gib=0.0)(["dog"])
    assert len(list(tmp_path.glob("features/one/*/*"))) == 1


def test_a_text_encoder_goes_by_every_bit_of_it(backbone: Backbone) -> None:
    weight = next(backbone.text_encoder.parameters())
    before, kept = backbone.text_encoder_key(), weight.detach().flatten()[7].clone()
    weight.data.view(-1)[7] += 1e-6
    changed = backbone.text_encoder_key()
    weight.data.view(-1)[7] = kept
    assert changed != before == backbone.text_encoder_key()


def test_what_other_processes_keep_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that each counted only themselves would take twice the room."""
    monkeypatch.setattr(feature_store, "_RECOUNT", 4)
    kept = torch.zeros(2, 128)  # 1 KiB, and the file's header
    stores = [FeatureStore(tmp_path, encoder="one", limit_gib=20 * 1100 / 2**30) for _ in range(2)]
    for k in range(40):
        for number, store in enumerate(stores):
            store.add(f"{number}, {k}", kept)
    assert 20 <= len(list(tmp_path.rglob("*.safetensors"))) <= 20 + 4
