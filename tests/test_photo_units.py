"""Which pictures are crops of one photo, and means whose unit is the photo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from osediff_exp.data.sources import Picture, with_unique_names
from osediff_exp.photo_units import by_photo, is_standard_error, photo_totals, photo_weights, photos_of, standard_error


def test_numbered_crops_share_their_photo_and_camera_files_do_not() -> None:
    names = ["cheetah_0", "cheetah_11", "butterfly-2_0", "butterfly-2", "IMG_1234", "IMG_1235", "a_07", "Canon_001_LR4", "b_100", "a_12"]
    assert list(photos_of(names).values()) == ["cheetah", "cheetah", "butterfly-2", "butterfly-2", *names[4:]]


def test_a_counter_of_pictures_is_no_title() -> None:
    names = [f"img_{k}" for k in range(24)]
    assert photos_of(names) == {name: name for name in names}


def test_patches_of_a_photo_are_of_it_however_many_there_are() -> None:
    names = [f"{801 + k:04d}_pch_{patch:05d}" for k in range(100) for patch in range(1, 31)]
    assert set(photos_of(names).values()) == {f"{801 + k:04d}" for k in range(100)}
    assert set(photos_of(names[:20]).values()) == {"0801"}, "patches say that they are of one photo"


def test_numbers_that_run_on_over_a_few_titles_count_pictures() -> None:
    for pattern in ("{}_{}", "{}_{:02d}", "{}_{:03d}_LR4"):
        names = [pattern.format(camera, k) for camera in ("Canon", "Nikon") for k in range(1, 51)]
        assert photos_of(names) == {name: name for name in names}, pattern
    most = [f"photo{photo}_{crop}" for photo in range(2) for crop in range(16)]
    assert len(set(photos_of(most).values())) == 2, "as many crops as are cut of a photo"
    many = [f"photo{photo}_{crop}" for photo in range(6) for crop in range(40)]
    assert len(set(photos_of(many).values())) == 6, "many photos with many crops each: few photos are the careful guess"


def test_names_that_were_told_apart_are_not_taken_for_crops() -> None:
    pictures = [Picture(Path(folder) / f"{k}.png", f"{k}") for folder in ("lake", "forest", "forest") for k in range(1, 13)]
    names = [picture.name for picture in with_unique_names(pictures)]
    assert (names[12], names[24], len(set(names))) == ("forest-1", "1-2", 36)
    assert photos_of(names) == {name: name for name in names}


def test_the_mean_over_photos_is_the_mean_over_pictures() -> None:
    values = {"a_0": 1.0, "a_1": 3.0, "b_0": 5.0, "c": 6.0}
    photos, mean = by_photo(values), 15 / 4
    assert photos == {"a": mean + (4 - 2 * mean) * 3 / 4, "b": mean + (5 - mean) * 3 / 4, "c": mean + (6 - mean) * 3 / 4}
    assert np.mean(list(photos.values())) == pytest.approx(mean)
    assert photo_totals(values) == {"a": 4 * 3 / 4, "b": 5 * 3 / 4, "c": 6 * 3 / 4}
    assert photo_weights(values) == {"a": 2 * 3 / 4, "b": 3 / 4, "c": 3 / 4}
    assert by_photo({"a_0": 1.0, "a_1": 3.0, "b_0": 5.0, "b_1": 6.0}) == {"a": 2.0, "b": 5.5}, "as many crops of each: their means"


def test_crops_that_repeat_their_photo_make_the_mean_no_surer() -> None:
    values = np.random.default_rng(0).normal(size=20)
    once = {f"p{k}_0": value for k, value in enumerate(values)}
    thrice = {f"p{k}_{crop}": value for k, value in enumerate(values) for crop in range(3)}
    assert standard_error(thrice) == pytest.approx(standard_error(once)) == pytest.approx(values.std(ddof=1) / 20**0.5)
    assert math.isnan(standard_error({"a": 1.0}))


def crops(sizes: Sequence[int]) -> list[str]:
    return [f"photo{photo}_{crop}" for photo, size in enumerate(sizes) for crop in range(size)]


def test_a_value_that_all_pictures_share_is_known_for_sure_however_many_crops_their_photos_have() -> None:
    values = dict.fromkeys(crops([1, 3, 16, 7, 2, 9, 12]), 0.5)
    assert set(by_photo(values).values()) == {0.5}
    assert standard_error(values) == 0


def test_the_standard_error_is_that_of_the_mean_where_photos_have_unequal_numbers_of_crops() -> None:
    rng = np.random.default_rng(0)
    names = crops(rng.integers(1, 17, 24).tolist())
    photo = np.array([int(name.removeprefix("photo").split("_")[0]) for name in names])
    means, errors, covered = [], [], 0
    for _ in range(200):
        values = 0.5 + rng.normal(0, 0.1, 24)[photo] + rng.normal(0, 0.1, len(names))
        means.append(values.mean())
        errors.append(standard_error(dict(zip(names, values.tolist(), strict=True))))
        covered += abs(means[-1] - 0.5) < stats.t.ppf(0.975, 23) * errors[-1]
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15), "the totals' deviation is four times as large"
    assert covered / 200 == pytest.approx(0.95, abs=0.035)


def test_what_a_name_means_does_not_depend_on_which_pictures_have_a_figure() -> None:
    names = [f"{camera}_{k}" for camera in ("Canon", "Nikon") for k in range(1, 18)]
    values = {name: float(k) for k, name in enumerate(names)}
    photos = photos_of(names)
    assert len(by_photo(values)) == 34
    some = {name: value for name, value in values.items() if not name.endswith("_17")}
    assert len(by_photo(some)) == 2  # by themselves they look like crops
    assert len(by_photo(some, photos)) == len(photo_weights(some, photos)) == len(photo_totals(some, photos)) == 32


def test_a_standard_error_belongs_to_a_figure() -> None:
    assert is_standard_error("kid_se", ["kid", "kid_se"])
    assert not is_standard_error("mouse_se", ["kid"])
