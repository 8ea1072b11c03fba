"""Words from a file beside the data, and from a model that captions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from osediff_exp.errors import UserError
from osediff_exp.models.sidecar import SidecarPrompt, read_sidecar
from osediff_exp.models.taggers.captioner import CaptionPrompt

PICTURES = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(2))
CSV = 'name,tags\ncastle.png,"wall, tower, sky"\nsub/sea.jpg,sea\nv1.5,empty\nnothing,\n'
JSONL = '{"name": "castle", "tags": ["wall", "tower", "sky"]}\n\n{"file": "sub/sea.jpg", "caption": "sea"}\n'


def sidecar(tmp_path: Path, text: str, name: str = "tags.csv", **settings: object) -> SidecarPrompt:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return SidecarPrompt(file=str(tmp_path / name), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "name"), [(CSV, "tags.csv"), (JSONL, "tags.jsonl"), ("\ufeff" + CSV, "excel.csv")])
def test_pictures_are_found_by_name_in_either_format(tmp_path: Path, text: str, name: str) -> None:
    prompts = sidecar(tmp_path, text, name, prefix="photo of", prompt="sharp", max_tags=2)
    assert prompts(PICTURES, ["castle", "sea"]) == ["photo of, wall, tower, sharp", "photo of, sea, sharp"]


def test_a_name_may_have_a_point_and_a_text_may_be_empty(tmp_path: Path) -> None:
    prompts = sidecar(tmp_path, CSV, prompt="sharp")
    assert prompts(PICTURES, ["v1.5", "nothing"]) == ["empty, sharp", "sharp"]


def test_a_sidecar_of_other_pictures_is_one_clear_line(tmp_path: Path) -> None:
    prompts = sidecar(tmp_path, CSV)
    prompts.expect(["castle", "sea"])
    with pytest.raises(
        UserError, match=r"tags\.csv says nothing of the picture castles \(and 1 more\); it names castle, sea, v1\.5, \.\.\."
    ) as caught:
        prompts.expect(["sea", "castles", "bridge"])
    assert "Did you mean 'castle'?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("picture,words\na,b\n", "tags.csv", r"line 2 has no 'name'"),
        ("name,tags\n", "tags.csv", "names no picture"),
        ("name,tags\na,x\na,y\n", "tags.csv", r"line 3: 'a' stands there twice"),
        ('{"name": "a"}\n', "tags.jsonl", r"line 1 has no 'tags'"),
        ("name,tags\n", "tags.jsonl", "line 1 is no JSON"),
        ("[1]\n", "tags.jsonl", "line 1 is no object"),
    ],
)
def test_a_damaged_sidecar_names_the_line(tmp_path: Path, text: str, name: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_sidecar(tmp_path / name)


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BLIP with random weights and a vocabulary of a dozen words, as transformers saves it."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    folder = tmp_path_factory.mktemp("captioner")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "dog", "on", "the", "mat", "red"]
    (folder / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    marks = {"bos_token_id": 2, "pad_token_id": 0, "eos_token_id": 3, "sep_token_id": 3}
    text = {**sizes, **marks, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=16)
    )
    model.save_pretrained(folder / "blip")
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), BertTokenizer(str(folder / "vocab.txt")))
    processor.save_pretrained(folder / "blip")
    return folder / "blip"


def test_a_captioner_from_a_local_folder_speaks_once_per_picture(blip: Path, tmp_path: Path) -> None:
    prompts = CaptionPrompt(model=str(blip), prompt="sharp", prefix="photo", max_new_tokens=4, cache=str(tmp_path))
    first = prompts(PICTURES, ["a", "b"])
    assert all(text.startswith("photo, ") and text.endswith(", sharp") and 1 <= len(text.split()) - 2 <= 4 for text in first)
    assert not any("[" in text for text in first)
    assert prompts.figures()["tag_cache_misses"] == 2
    again = CaptionPrompt(model=str(blip), prompt="sharp", prefix="photo", max_new_tokens=4, cache=str(tmp_path))
    assert again(PICTURES, ["a", "b"]) == first
    assert again.figures()["tag_cache_misses"] == 0
    other = CaptionPrompt(model=str(blip), instruction="a cat", max_new_tokens=4, cache=str(tmp_path))
    assert other(PICTURES, ["a", "b"]) != first
    assert other.figures()["tag_cache_misses"] == 2


def test_a_folder_that_is_no_captioner_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        CaptionPrompt(model=str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="is no captioner that transformers loads"):
        CaptionPrompt(model=str(tmp_path), cache=None)(PICTURES, ["a", "b"])
