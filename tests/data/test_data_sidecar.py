"""Words from a file beside the data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from osediff_exp.data.photo_files import PhotoFile
from osediff_exp.data.sidecar import SidecarPrompt, read_sidecar
from osediff_exp.errors import UserError

PICTURES = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(2))
CSV = 'name,tags\ncastle.png,"wall, tower, sky"\nsub/sea.jpg,sea\nv1.5,empty\nnothing,\n'
JSONL = '{"name": "castle", "tags": ["wall", "tower", "sky"]}\n\n{"file": "sub/sea.jpg", "caption": "sea"}\n'


def sidecar(tmp_path: Path, text: str, name: str = "tags.csv", **settings: object) -> SidecarPrompt:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return SidecarPrompt(file=str(tmp_path / name), **settings)  # type: ignore[arg-type]


def expect(prompts: SidecarPrompt, *files: str) -> None:
    paths = [Path("/photos", file) for file in files]
    prompts.expect([path.stem for path in paths], paths)


@pytest.mark.parametrize(("text", "name"), [(CSV, "tags.csv"), (JSONL, "tags.jsonl"), ("\ufeff" + CSV, "excel.csv")])
def test_pictures_are_found_by_name_in_either_format(tmp_path: Path, text: str, name: str) -> None:
    prompts = sidecar(tmp_path, text, name, prefix="photo of", prompt="sharp", max_tags=2)
    assert prompts(PICTURES, ["castle", "sea"]) == ["photo of, wall, tower, sharp", "photo of, sea, sharp"]


def test_a_name_may_have_a_point_and_a_text_may_be_empty(tmp_path: Path) -> None:
    prompts = sidecar(tmp_path, CSV, prompt="sharp")
    assert prompts(PICTURES, ["v1.5", "nothing"]) == ["empty, sharp", "sharp"]


def test_a_sidecar_of_other_pictures_is_one_clear_line(tmp_path: Path) -> None:
    prompts = sidecar(tmp_path, CSV)
    expect(prompts, "castle.png", "sea.png")
    with pytest.raises(
        UserError, match=r"tags\.csv has no line for the picture castles \(and 1 more\); it names castle, sea, v1\.5, \.\.\."
    ) as caught:
        expect(prompts, "sea.png", "castles.png", "bridge.png")
    assert "Did you mean 'castle'?" in str(caught.value)


SAME_NAMES = "name,tags\n1.png,root\na/1.png,first\nb/1.png,second\nb/1.jpg,third\nbird.jpg.png,bird\nold,old\n"


def test_pictures_of_one_name_are_told_apart_by_folder_and_suffix(tmp_path: Path) -> None:
    prompts = sidecar(tmp_path, SAME_NAMES)
    files = {"a/1.png": "first", "b/1.png": "second", "b/1.jpg": "third", "1.png": "root", "bird.jpg.png": "bird", "x/old.png": "old"}
    paths = [f"/data/photos/{file}" for file in files]
    names = [Path(path).stem for path in paths]
    assert prompts.of_crops(PICTURES, names, paths) == list(files.values())
    assert prompts.of_photos([PhotoFile(Path(path)) for path in paths], like=PICTURES) == list(files.values())
    prompts.expect(names, [Path(path) for path in paths])
    with pytest.raises(UserError, match=r"says several things of the picture 1 \(1\.png and a/1\.png\)"):
        prompts(PICTURES[:1], ["1"])  # nobody knows which


def test_a_line_is_one_picture_s(tmp_path: Path) -> None:
    prompts = sidecar(tmp_path, "name,tags\n1,cat\n")
    expect(prompts, "train/1.png", "train/1.png")
    with pytest.raises(UserError, match=r"has one line, 1, for /photos/train/1\.png and /photos/val/1\.png"):
        expect(prompts, "train/1.png", "val/1.png")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("picture,words\na,b\n", "tags.csv", r"line 2 has no 'name'"),
        ("name,tags\n", "tags.csv", "names no picture"),
        ("name,tags\na,x\na,y\n", "tags.csv", r"line 3: 'a' is listed twice"),
        ("name,tags\nb/a.png,x\nb/a.png,y\n", "tags.csv", r"line 3: 'b/a\.png' is listed twice"),
        ('{"name": "a"}\n', "tags.jsonl", r"line 1 has no 'tags'"),
        ("name,tags\n", "tags.jsonl", "line 1 is no JSON"),
        ("[1]\n", "tags.jsonl", "line 1 is no object"),
    ],
)
def test_a_damaged_sidecar_names_the_line(tmp_path: Path, text: str, name: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_sidecar(tmp_path / name)
