"""Pairs are pure functions of seed and sample number (or name), and show what they should."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from conftest import write_photo
from PIL import Image

from osediff_exp.data.cache import ImageLoader
from osediff_exp.data.images import load_rgb
from osediff_exp.data.paired_folder import PairedFolder
from osediff_exp.data.pairs import TrainingPairs, ValidationPairs
from osediff_exp.data.sources import ImageSource, Picture
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from osediff_exp.degradations.base import Degradation


def stream(root: Path, degradation: Degradation, **changes: object) -> TrainingPairs:
    lists = [[picture.path for picture in ImageSource(root=str(root)).pictures()]]
    options = {"lists": lists, "weights": [1.0], "crop_size": 16, "seed": 3} | changes
    return TrainingPairs(degradation=degradation, **options)  # type: ignore[arg-type]


def equal(a: dict[str, object], b: dict[str, object]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key]
        for key in a  # type: ignore[arg-type]
    )


def test_sample_is_a_function_of_seed_and_number(photos: Path, degradation: Degradation) -> None:
    one, other = stream(photos, degradation), stream(photos, degradation, load=ImageLoader(cache_images=True))
    forward = [one[i] for i in (0, 1, 999_999_999_999)]
    backward = [other[i] for i in (999_999_999_999, 1, 0)][::-1]
    assert all(map(equal, forward, backward))
    assert not equal(one[0], stream(photos, degradation, seed=4)[0])
    assert not torch.equal(one[0]["hq"], one[1]["hq"])


def test_sample_shapes_types_and_ranges(photos: Path, degradation: Degradation) -> None:
    sample = stream(photos, degradation)[5]
    assert set(sample) == {"lq", "hq", "index", "name", "path"}
    for key in ("lq", "hq"):
        assert sample[key].shape == (3, 16, 16)
        assert sample[key].dtype == torch.float32
        assert 0 <= sample[key].min() <= sample[key].max() <= 1
    assert sample["index"] == 5
    assert sample["name"] in {"0", "1", "2", "3", "4", "5"}


def test_hq_is_a_window_of_its_photo_flipped_half_the_time(photos: Path, degradation: Degradation) -> None:
    pairs = stream(photos, degradation)
    flips, corners = 0, set()
    for i in range(300):
        hq = (pairs[i]["hq"] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        windows = np.lib.stride_tricks.sliding_window_view(load_rgb(pairs.path_of(i)), (16, 16, 3))[:, :, 0]
        found = {
            flip: np.argwhere((windows[:, :, ::8, ::5] == view[::8, ::5]).all((2, 3, 4))) for flip, view in enumerate((hq, hq[:, ::-1]))
        }
        assert len(found[0]) + len(found[1]) == 1
        flips += len(found[1])
        corners.add(tuple((found[0] if len(found[0]) else found[1])[0]))
    assert abs(flips - 150) < 4 * 75**0.5  # four standard deviations of a fair coin
    assert {top for top, _ in corners} == set(range(25))  # 40 - 16 + 1 rows
    assert {left for _, left in corners} == set(range(33))  # 48 - 16 + 1 columns


def test_weights_choose_the_list_not_the_image(degradation: Degradation) -> None:
    lists = [[Path(f"many{k}") for k in range(50)], [Path("one")], [Path("never")]]
    pairs = TrainingPairs(lists=lists, weights=[3.0, 1.0, 0.0], degradation=degradation, crop_size=16, seed=3)
    counts = Counter(pairs.path_of(i).name for i in range(8000))
    assert counts["never"] == 0
    assert abs(counts["one"] - 2000) < 4 * (8000 * 0.25 * 0.75) ** 0.5
    inside = np.array([counts[f"many{k}"] for k in range(50)])
    expected = inside.sum() / 50
    assert ((inside - expected) ** 2 / expected).sum() < 95  # chi-square, 49 degrees of freedom: p < 0.0001


def test_negative_numbers_are_no_samples(photos: Path, degradation: Degradation) -> None:
    with pytest.raises(IndexError):
        stream(photos, degradation)[-1]


def test_validation_is_the_centre_and_its_bicubic_enlargement(photos: Path, degradation: Degradation) -> None:
    pairs = ValidationPairs(pictures=ImageSource(root=str(photos)).pictures(), degradation=degradation, size=32, seed=1)
    sample = pairs[2]
    np.testing.assert_array_equal((sample["hq"] * 255).round().permute(1, 2, 0).numpy(), load_rgb(photos / "2.png")[4:36, 8:40])
    lr = Image.fromarray((sample["lr"] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())
    assert lr.size == (8, 8)
    enlarged = np.asarray(lr.resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal((sample["lq"] * 255).round().permute(1, 2, 0).numpy(), enlarged)


def test_validation_pair_depends_on_name_and_seed_alone(photos: Path, degradation: Degradation) -> None:
    pictures = ImageSource(root=str(photos)).pictures()

    def pair(chosen: list[Picture], k: int, seed: int = 1) -> dict[str, object]:
        return ValidationPairs(pictures=chosen, degradation=degradation, size=32, seed=seed)[k] | {"index": 0}

    assert equal(pair(pictures, 3), pair(pictures[3:], 0))
    assert not equal(pair(pictures, 3), pair(pictures, 3, seed=2))


@pytest.mark.parametrize("f", [1, 4])
def test_paired_folder_cuts_both_alike_and_enlarges(tmp_path: Path, f: int) -> None:
    lr = write_photo(tmp_path / "test_LR" / "a.png", height=60 // f, width=68 // f)
    hr = np.kron(lr, np.ones((f, f, 1), np.uint8))
    (tmp_path / "test_HR").mkdir()
    Image.fromarray(hr).save(tmp_path / "test_HR" / "a.png")
    pairs = PairedFolder(lr_root=str(tmp_path / "test_LR"), hr_root=str(tmp_path / "test_HR"))
    sample = pairs[0]
    assert pairs.sizes() == {(56, 64)}
    assert sample["lq"].shape == sample["hq"].shape == (3, 56, 64)
    assert torch.equal(sample["hq"], sample["lr"].repeat_interleave(f, 1).repeat_interleave(f, 2))
    assert f > 1 or torch.equal(sample["lq"], sample["lr"])


def test_paired_folder_refuses_what_does_not_pair(tmp_path: Path) -> None:
    lr, hr = tmp_path / "test_LR", tmp_path / "test_HR"
    write_photo(lr / "scene.png", height=8, width=8)
    write_photo(hr / "scena.png", height=32, width=32)
    with pytest.raises(UserError, match=r"^no partner in data\.val_hr_root for scene .*Did you mean 'scena'\?$"):
        PairedFolder(lr_root=str(lr), hr_root=str(hr))
    (hr / "scena.png").unlink()
    write_photo(hr / "scene.png", height=32, width=33)
    with pytest.raises(UserError, match=r"HR is 33 x 32 and LR 8 x 8"):
        PairedFolder(lr_root=str(lr), hr_root=str(hr)).sizes()
    write_photo(hr / "copy" / "scene.png", height=32, width=32)
    with pytest.raises(UserError, match="two images named 'scene'"):
        PairedFolder(lr_root=str(lr), hr_root=str(hr))


def test_realsr_pairs_load() -> None:
    root = Path(__file__).parents[2].parent / "shared" / "data" / "realsr"
    if not root.is_dir():
        pytest.skip("needs ../shared/data/realsr beside the repository")
    pairs = PairedFolder(lr_root=str(root / "test_LR"), hr_root=str(root / "test_HR"))
    assert len(pairs) == 100
    assert pairs.sizes() == {(512, 512)}
    assert pairs[0]["lr"].shape == (3, 128, 128)
