"""Decoded photos on disk: the stream is the same, entries are whole or made anew, and no trouble with the folder ends a training."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from conftest import write_photo

from osediff_exp.data.cache import ImageLoader
from osediff_exp.data.datamodule import RestorationDataModule
from osediff_exp.data.photo_store import GIB, PhotoStore
from osediff_exp.data.sources import ImageSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from osediff_exp.degradations.base import Degradation

NBYTES = 40 * 48 * 3


def pixels(path: Path) -> np.ndarray:
    """Return what the fixture's photo shows."""
    return np.random.default_rng(int(path.stem)).integers(0, 256, (40, 48, 3), dtype=np.uint8)


def entries(root: Path) -> list[Path]:
    return sorted(root.glob("decoded/*/*"))


def loader(root: Path, *, room: float = 100.0) -> ImageLoader:
    """Return a loader whose store has room for so many of the fixture's photos."""
    return ImageLoader(store=PhotoStore(root, limit_gib=room * NBYTES / GIB))


def spoil(path: Path) -> None:
    """Overwrite a file with zeros; its size and the time of its change stay."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
@pytest.mark.parametrize("workers", [0, 2])
def test_the_stream_is_the_same_to_the_bit_without_decoding(photos: Path, degradation: Degradation, tmp_path: Path, workers: int) -> None:
    options = {"crop_size": 16, "val_size": 32, "batch_size": 4, "seed": 3, "val_seed": 1, "num_workers": workers}

    def module(**cache: object) -> RestorationDataModule:
        data = RestorationDataModule(train=[ImageSource(root=str(photos))], degradation=degradation, **(options | cache))  # type: ignore[arg-type]
        data.setup("fit")
        return data

    def same(data: RestorationDataModule) -> bool:
        batches = zip(plain, islice(data.train_dataloader(), 10), strict=True)
        return all(torch.equal(a[key], b[key]) for a, b in batches for key in ("lq", "hq", "index"))

    plain = list(islice(module().train_dataloader(), 10))
    first, second = module(cache_dir=str(tmp_path / "cache")), module(cache_dir=str(tmp_path / "cache"))
    assert same(first)
    for path in photos.rglob("*.png"):
        loader(tmp_path / "cache")(path)  # where two workers had decoded at once, one of them did not wait to write
        spoil(path)
    assert same(second)
    assert len(entries(tmp_path / "cache")) == 6


def test_a_photo_that_has_changed_takes_the_place_of_the_old_one(photos: Path, tmp_path: Path) -> None:
    path = photos / "0.png"
    loader(tmp_path)(path)
    changed = write_photo(path, seed=9)
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(loader(tmp_path)(path), changed)
    assert len(entries(tmp_path)) == 1
    np.testing.assert_array_equal(PhotoStore(tmp_path, limit_gib=1).get(path), changed)


def test_each_reduction_is_kept_apart(photos: Path, tmp_path: Path) -> None:
    store = PhotoStore(tmp_path, limit_gib=1)
    for reduce_to in (None, 20):
        ImageLoader(store=store, reduce_to=reduce_to)(photos / "0.png")
    sizes = [store.get(photos / "0.png", reduce_to=reduce_to).shape for reduce_to in (None, 20)]  # type: ignore[union-attr]
    assert sizes == [(40, 48, 3), (20, 24, 3)]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_", b"PK\x03\x04", None], ids=repr)
def test_a_damaged_entry_is_made_anew(photos: Path, tmp_path: Path, damage: bytes | None) -> None:
    path = photos / "1.png"
    loader(tmp_path)(path)
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(whole[:-1] if damage is None else damage)
    assert PhotoStore(tmp_path, limit_gib=1).get(path) is None
    np.testing.assert_array_equal(loader(tmp_path)(path), pixels(path))
    assert entry.read_bytes() == whole


def test_what_a_killed_process_left_is_replaced(photos: Path, tmp_path: Path) -> None:
    loader(tmp_path)(photos / "2.png")
    (entry,) = entries(tmp_path)
    entry.rename(left := entry.with_name(entry.name + ".part"))
    left.write_bytes(b"half")
    loader(tmp_path)(photos / "2.png")
    assert entries(tmp_path) == [entry]


def test_a_full_folder_says_so_once_and_keeps_what_is_not_its_own(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_photo(tmp_path / "decoded" / "mine.png")
    load = loader(tmp_path, room=2.5)
    with caplog.at_level(logging.WARNING, logger="osediff_exp"):
        for path in sorted(photos.glob("*.png")):
            np.testing.assert_array_equal(load(path), pixels(path))
    assert len([entry for entry in entries(tmp_path) if entry.suffix == ".npy"]) == 2
    (line,) = caplog.messages
    assert "data.cache_dir_gib" in line
    assert str(tmp_path) in line
    assert (tmp_path / "decoded" / "mine.png").is_file()


def test_entries_that_were_removed_make_room_again(photos: Path, tmp_path: Path) -> None:
    for name in ("0", "1", "2"):
        loader(tmp_path, room=2.5)(photos / f"{name}.png")
    entries(tmp_path)[0].unlink()
    loader(tmp_path, room=2.5)(photos / "3.png")
    assert len(entries(tmp_path)) == 2
    assert PhotoStore(tmp_path, limit_gib=1).get(photos / "3.png") is not None


@pytest.fixture
def small_files(photos: Path) -> Iterator[None]:
    """No file written after the photos can grow beyond 1,000 bytes, which a decoded one does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_costs_the_cache_alone(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load = loader(tmp_path)
    with caplog.at_level(logging.WARNING, logger="osediff_exp"):
        for path in sorted(photos.glob("*.png")):
            np.testing.assert_array_equal(load(path), pixels(path))
    (line,) = caplog.messages
    assert "cannot be written" in line
    assert "data.cache_dir=DIR" in line
    assert entries(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_line(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file")
    load = loader(tmp_path / "cache")
    with caplog.at_level(logging.WARNING, logger="osediff_exp"):
        for path in sorted(photos.glob("*.png")):
            np.testing.assert_array_equal(load(path), pixels(path))
    assert len(caplog.messages) == 1


def test_who_finds_another_process_writing_does_not_wait(photos: Path, tmp_path: Path) -> None:
    load = loader(tmp_path)
    load(photos / "0.png")
    with (tmp_path / "decoded" / "bytes").open("r+") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        np.testing.assert_array_equal(load(photos / "1.png"), pixels(photos / "1.png"))
        assert len(entries(tmp_path)) == 1
    load(photos / "1.png")
    assert len(entries(tmp_path)) == 2


def test_what_is_kept_in_memory_is_not_mapped(photos: Path, tmp_path: Path) -> None:
    loader(tmp_path)(photos / "0.png")
    load = ImageLoader(cache_images=True, store=PhotoStore(tmp_path, limit_gib=1))
    image = load(photos / "0.png")
    assert image.flags.owndata
    assert not image.flags.writeable
    assert load(photos / "0.png") is image
