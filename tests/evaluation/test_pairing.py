"""Outputs and originals are matched by name, and nothing is dropped in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from osediff_exp.errors import UserError
from osediff_exp.evaluation.pairing import KINDS, Pair, count_problems, pair_folders, read_pair

if TYPE_CHECKING:
    from pathlib import Path


def picture(path: Path, *, size: tuple[int, int] = (8, 6), value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path)
    return path


def folders(tmp_path: Path, pred: list[str], gt: list[str]) -> tuple[str, str]:
    for folder, names in (("pred", pred), ("gt", gt)):
        for name in names:
            picture(tmp_path / folder / name)
    return str(tmp_path / "pred"), str(tmp_path / "gt")


def test_names_match_whatever_the_type_and_the_subfolder(tmp_path: Path) -> None:
    pairing = pair_folders(*folders(tmp_path, ["a.jpg", "deep/b.PNG"], ["x/y/a.png", "b.webp"]))
    assert [(pair.name, pair.pred.name, pair.target.name) for pair in pairing.pairs] == [("a", "a.jpg", "a.png"), ("b", "b.PNG", "b.webp")]
    assert pairing.problems == []
    assert pairing.hint == ""


def test_missing_and_extra_pictures_are_all_listed(tmp_path: Path) -> None:
    pred, gt = folders(tmp_path, ["a.png", "p.png", "q.png"], ["a.png", "r.png", "s.png", "t.png"])
    pairing = pair_folders(pred, gt)
    assert [pair.name for pair in pairing.pairs] == ["a"]
    assert [(problem.name, problem.problem) for problem in pairing.problems] == [
        ("r", "missing"),
        ("s", "missing"),
        ("t", "missing"),
        ("p", "extra"),
        ("q", "extra"),
    ]
    assert f"{gt}/r.png" in pairing.problems[0].detail
    assert count_problems(pairing.problems) == {"missing": 3, "extra": 2, "mis-sized": 0, "unreadable": 0}
    assert tuple(count_problems([])) == KINDS


def test_a_name_twice_in_a_folder_is_refused_with_both_files(tmp_path: Path) -> None:
    pred, gt = folders(tmp_path, ["a.png", "old/a.jpg", "b.png", "old/b.png"], ["a.png"])
    with pytest.raises(UserError, match=r"two pictures named 'a' \(.*pred/a\.png and .*pred/old/a\.jpg\) and 1 more") as error:
        pair_folders(pred, gt)
    assert "\n" not in str(error.value)


def test_a_common_suffix_is_offered_and_only_used_when_asked_for(tmp_path: Path) -> None:
    pred, gt = folders(tmp_path, ["1_x4.png", "2_x4.png", "10_x4.png", "c.png"], ["1.png", "2.png", "10.png", "c.png"])
    pairing = pair_folders(pred, gt)
    assert [pair.name for pair in pairing.pairs] == ["c"]
    assert "3 more would match without '_x4'" in pairing.hint
    assert "add pred_suffix=_x4" in pairing.hint
    whole = pair_folders(pred, gt, pred_suffix="_x4")
    assert [pair.name for pair in whole.pairs] == ["1", "10", "2", "c"]
    assert (whole.problems, whole.hint) == ([], "")


def test_the_suffix_may_be_the_originals(tmp_path: Path) -> None:
    pred, gt = folders(tmp_path, ["a.png"], ["a_HR.png"])
    with pytest.raises(UserError, match=r"no picture of pred=.* 'a' in pred, 'a_HR' in gt.*add gt_suffix=_HR"):
        pair_folders(pred, gt)
    assert [pair.name for pair in pair_folders(pred, gt, gt_suffix="_HR").pairs] == ["a"]


def test_a_digit_is_no_suffix(tmp_path: Path) -> None:
    pairing = pair_folders(*folders(tmp_path, ["a.png", "10.png"], ["a.png", "1.png"]))
    assert pairing.hint == ""


def test_folders_without_a_common_name_or_without_pictures_are_refused(tmp_path: Path) -> None:
    pred, gt = folders(tmp_path, ["a.png"], ["b.png"])
    with pytest.raises(UserError, match="Pictures are matched by name"):
        pair_folders(pred, gt)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"pred=.*empty holds no image"):
        pair_folders(str(tmp_path / "empty"), gt)


def test_a_pair_is_read_as_8_bit_rgb(tmp_path: Path) -> None:
    images = read_pair(Pair("a", picture(tmp_path / "p.png", value=7), picture(tmp_path / "t.png", value=9)))
    assert not isinstance(images, list)
    assert [(image.shape, image.dtype, int(image[0, 0, 0])) for image in images] == [((8, 6, 3), np.uint8, 7), ((8, 6, 3), np.uint8, 9)]


def test_another_size_is_told_with_both_sizes(tmp_path: Path) -> None:
    problems = read_pair(Pair("a", picture(tmp_path / "p.png", size=(6, 8)), picture(tmp_path / "t.png")))
    assert isinstance(problems, list)
    assert problems[0].problem == "mis-sized"
    assert problems[0].detail == f"{tmp_path}/p.png is 8 x 6, {tmp_path}/t.png 6 x 8 (width x height)"


def test_every_unreadable_file_is_named_with_the_reason(tmp_path: Path) -> None:
    text, cut = tmp_path / "text.png", tmp_path / "cut.png"
    text.write_text("no picture")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(cut)
    cut.write_bytes(cut.read_bytes()[:4000])
    problems = read_pair(Pair("a", text, cut))
    assert isinstance(problems, list)
    assert [problem.problem for problem in problems] == ["unreadable", "unreadable"]
    assert f"{text} (not an image)" in problems[0].detail
    assert f"{cut} (unreadable: " in problems[1].detail
