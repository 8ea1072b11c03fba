"""Words from a file beside the data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from osediff_exp.data.sidecar import SidecarPrompt, read_sidecar
from osediff_exp.errors import UserError

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
        UserError, match=r"tags\.csv has no line for the picture castles \(and 1 more\); it names castle, sea, v1\.5, \.\.\."
    ) as caught:
        prompts.expect(["sea", "castles", "bridge"])
    assert "Did you mean 'castle'?" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("picture,words\na,b\n", "tags.csv", r"line 2 has no 'name'"),
        ("name,tags\n", "tags.csv", "names no picture"),
        ("name,tags\na,x\na,y\n", "tags.csv", r"line 3: 'a' is listed twice"),
        ('{"name": "a"}\n', "tags.jsonl", r"line 1 has no 'tags'"),
        ("name,tags\n", "tags.jsonl", "line 1 is no JSON"),
        ("[1]\n", "tags.jsonl", "line 1 is no object"),
    ],
)
def test_a_damaged_sidecar_names_the_line(tmp_path: Path, text: str, name: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_sidecar(tmp_path / name)
