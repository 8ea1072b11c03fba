"""Hostile files through every reader: each is read or named in one line, and memory stays bounded."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_files import BAD, GOOD, HOSTILE, write_hostile, write_no_files

from osediff_exp.data.checks import find_bad_images
from osediff_exp.data.images import load_rgb, read_size
from osediff_exp.data.sources import ImageSource
from osediff_exp.evaluation.pairing import Pair, read_pair
from osediff_exp.reporting.pictures import load_picture
from osediff_exp.restoration.folder import _read
from osediff_exp.restoration.jobs import plan_jobs

pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("hostile")
    write_hostile(found)
    return found


def fate_of(reader: Callable[[Path], Any], path: Path) -> str:
    try:
        return BAD if reader(path) is None else GOOD
    except (OSError, ValueError, SyntaxError):
        return BAD


def test_there_are_sixty() -> None:
    assert len(HOSTILE) >= 60
    assert len({name.rpartition(".")[0] for name in HOSTILE}) == len(HOSTILE)  # scores go by these


@pytest.mark.parametrize("reader", [load_rgb, _read, load_picture], ids=["data", "restore", "report"])
def test_each_is_read_or_refused_in_bounded_memory(folder: Path, reader: Callable[[Path], Any]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = {}
    for name, (_, expected) in HOSTILE.items():
        found[name] = fate_of(reader, folder / name)
        if reader is load_picture and expected == BAD and name == "float.tif":
            continue  # a report shows what it can
        assert expected in (found[name], "either"), name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 * 1024  # KiB


def test_the_check_before_a_training_names_each_in_one_line(folder: Path) -> None:
    paths = [folder / name for name in HOSTILE]
    bad = {image.path.name: str(image) for image in find_bad_images(paths, min_size=1, verify="full")}
    for name, (_, expected) in HOSTILE.items():
        assert expected == "either" or (name in bad) == (expected == BAD), name
    assert all("\n" not in line for line in bad.values())


def test_scores_name_what_they_cannot_read(folder: Path) -> None:
    for name, (_, expected) in HOSTILE.items():
        found = read_pair(Pair(name="x", pred=folder / name, target=folder / name))
        if expected == BAD:
            assert isinstance(found, list), name
            assert found[0].problem == "unreadable", name
            assert "\n" not in found[0].detail


def test_what_is_no_file_is_no_photo(tmp_path: Path) -> None:
    write_no_files(tmp_path)
    jobs, _ = plan_jobs(tmp_path, tmp_path / "out", "png")
    assert all(job.source.is_symlink() for job in jobs)  # to nothing: it is said of each that it cannot be restored
    paths = [picture.path for picture in ImageSource(root=str(tmp_path), key="data.root").pictures()]
    assert len(find_bad_images(paths, min_size=1, verify="full")) == len(paths) == 3  # the folder is walked into


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    for reader in (load_rgb, read_size, _read):
        with pytest.raises((OSError, ValueError), match="gone"):
            reader(tmp_path / "gone.png")
