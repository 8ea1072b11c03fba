"""Words from a model that captions, in a local folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from osediff_exp.errors import UserError
from osediff_exp.models.taggers.captioner import CaptionPrompt

PICTURES = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(2))


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
