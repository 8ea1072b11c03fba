"""The pairs of a test set: which are found, and that every picture left out is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from osediff_exp.data.paired_folder import PairedFolder
from osediff_exp.errors import UserError
from osediff_exp.evaluation.pair_sets import find_roots, folder_pairs, validation_pairs


def write(path: Path, width: int, height: int, *, seed: int = 0) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def pairs_in(folder: Path, first: int | None = None):
    return folder_pairs(title="mine", lr_root=str(folder / "test_LR"), hr_root=str(folder / "test_HR"), first=first)


def test_pairs_carry_the_pixels_of_their_files_in_order_of_name(tmp_path: Path) -> None:
    for seed, name in enumerate(("b", "a")):
        lr = write(tmp_path / "test_LR" / f"{name}.png", 6, 5, seed=seed)
        hr = write(tmp_path / "test_HR" / f"{name}.bmp", 18, 15, seed=seed + 10)
    pairs = pairs_in(tmp_path)
    assert (pairs.title, list(pairs.names), list(pairs.problems)) == ("mine", ["a", "b"], [])
    first = next(iter(pairs))
    assert (first.name, first.scale) == ("a", 3)
    assert torch.equal(first.lr[0].mul(255).round().byte().permute(1, 2, 0), torch.from_numpy(lr))
    assert torch.equal(first.hr[0].mul(255).round().byte().permute(1, 2, 0), torch.from_numpy(hr))


def test_sides_need_no_common_multiple(tmp_path: Path) -> None:
    write(tmp_path / "test_LR" / "a.png", 33, 27)
    write(tmp_path / "test_HR" / "a.png", 66, 54)
    (pair,) = pairs_in(tmp_path)
    assert pair.hr.shape == (1, 3, 54, 66)
    assert pair.scale == 2


def test_every_picture_that_takes_no_part_is_named_at_once(tmp_path: Path) -> None:
    for name in ("good", "no_hr", "cut", "odd", "huge", "flat"):
        write(tmp_path / "test_LR" / f"{name}.png", 8, 8)
    for name, size in (
        ("good", (32, 32)),
        ("no_lr", (32, 32)),
        ("cut", (32, 32)),
        ("odd", (32, 31)),
        ("huge", (72, 72)),
        ("flat", (32, 16)),
    ):
        write(tmp_path / "test_HR" / f"{name}.png", *size)
    whole = (tmp_path / "test_HR" / "cut.png").read_bytes()
    (tmp_path / "test_HR" / "cut.png").write_bytes(whole[: len(whole) // 2])
    pairs = pairs_in(tmp_path)
    assert list(pairs.names) == ["good"]
    found = {problem.name: (problem.problem, problem.detail) for problem in pairs.problems}
    assert {name: kind for name, (kind, _) in found.items()} == {
        "no_hr": "missing",
        "no_lr": "missing",
        "cut": "unreadable",
        "odd": "mis-sized",
        "huge": "mis-sized",
        "flat": "mis-sized",
    }
    assert "no HR picture" in found["no_hr"][1]
    assert "no LR picture" in found["no_lr"][1]
    assert "HR is 32 x 31, LR 8 x 8" in found["odd"][1]
    assert [problem.name for problem in pairs.problems] == sorted(found)


def test_first_counts_names_also_those_without_a_partner(tmp_path: Path) -> None:
    for name in ("a", "c"):
        write(tmp_path / "test_LR" / f"{name}.png", 8, 8)
    for name in ("a", "b", "c"):
        write(tmp_path / "test_HR" / f"{name}.png", 8, 8)
    pairs = pairs_in(tmp_path, first=2)
    assert list(pairs.names) == ["a"]
    assert [problem.name for problem in pairs.problems] == ["b"]
    assert next(iter(pairs)).scale == 1


def test_without_a_usable_pair_the_first_names_and_the_nearest_are_told(tmp_path: Path) -> None:
    write(tmp_path / "test_LR" / "0801x4.png", 8, 8)
    write(tmp_path / "test_HR" / "0801.png", 32, 32)
    with pytest.raises(UserError, match=r"no usable pair.*0801 \(missing: no LR picture.*Did you mean '0801x4'.*same file name"):
        pairs_in(tmp_path)


def test_the_fields_layout_is_found_and_single_folders_win(tmp_path: Path) -> None:
    for name in ("test_LR", "test_HR", "other"):
        (tmp_path / name).mkdir()
    lr, hr, other = (str(tmp_path / name) for name in ("test_LR", "test_HR", "other"))
    assert find_roots(str(tmp_path), None, None) == (lr, hr)
    assert find_roots(str(tmp_path), other, None) == (other, hr)
    assert find_roots(None, lr, other) == (lr, other)
    with pytest.raises(UserError, match="data.root is not set"):
        find_roots(None, lr, None)
    with pytest.raises(UserError, match="holds no folder test_LR: set data.lr_root"):
        find_roots(other, None, None)


def test_validation_pairs_are_those_of_the_training(tmp_path: Path) -> None:
    write(tmp_path / "test_LR" / "a.png", 8, 8)
    write(tmp_path / "test_HR" / "a.png", 32, 32)
    own = PairedFolder(lr_root=str(tmp_path / "test_LR"), hr_root=str(tmp_path / "test_HR"))
    (pair,) = validation_pairs(own, title="validation")
    assert (pair.name, pair.scale) == ("a", 4)
    assert torch.equal(pair.lr[0], own[0]["lr"])
    assert torch.equal(pair.hr[0], own[0]["hq"])
