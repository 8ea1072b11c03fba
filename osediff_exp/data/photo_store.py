"""Decoded photos on disk, read by crop: a photo of a large set is decoded once, whoever trains on it."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import numpy as np
import PIL
from torch.utils.data import get_worker_info

from osediff_exp.data.images import ByteImage
from osediff_exp.models.prompt_cache.fingerprints import digest
from osediff_exp.whole_files import whole_file

try:
    import fcntl
except ImportError:  # Windows: nothing is added
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

GIB = 2**30
_LEDGER = "bytes"


class PhotoStore:
    """Decoded photos (H, W, 3) uint8, each a file ``ROOT/decoded/ab/PHOTO-STATE.npy`` that is mapped into memory: a crop reads its own
    pages, and all processes of a machine share them.

    PHOTO names the photo's path and its reduction, STATE its size, the time of its last change and Pillow's version: an entry of another
    state is made anew in the old one's place. Any number of processes may use a folder. One writes at a time, under a lock; another one
    that has decoded a photo meanwhile does not wait but leaves it to that photo's next sample. Entries are on the disk before they count.

    Args:
        root: folder of the cache.
        limit_gib: the folder grows no further than this. Nothing is removed but the outdated entry of a photo.
    """

    def __init__(self, root: Path, *, limit_gib: float) -> None:
        self.folder, self.limit = root / "decoded", limit_gib * GIB
        self._adds = True

    def get(self, path: Path, *, reduce_to: int | None = None) -> ByteImage | None:
        """Return the decoded photo, read-only; None where it is not there, outdated or damaged."""
        try:
            return _mapped(self._entry(path, reduce_to))
        except OSError:  # no such photo; who decodes it will say so
            return None

    def add(self, path: Path, image: ByteImage, *, reduce_to: int | None = None) -> None:
        """Keep a decoded photo; where there is no room or no permission, one line says so and no more is added by this process."""
        if not self._adds:
            return
        try:
            self._add(self._entry(path, reduce_to), image)
        except BlockingIOError:  # another process writes
            return
        except OSError as error:
            self._stop(f"{self.folder} cannot be written ({error.strerror or error}): data.cache_dir=DIR chooses another place")

    def _add(self, entry: Path, image: ByteImage) -> None:
        if fcntl is None:
            raise OSError("this system has no file locks")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / _LEDGER).touch()
        with (self.folder / _LEDGER).open("r+") as ledger:
            fcntl.flock(ledger, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _mapped(entry) is not None:  # another process was faster
                return
            outdated = list(entry.parent.glob(f"{entry.name.partition('-')[0]}-*"))
            used = self._used(ledger.read(), image.nbytes) - sum(old.stat().st_size for old in outdated)
            if used + image.nbytes > self.limit:
                self._stop(f"{self.folder} holds what data.cache_dir_gib={self.limit / GIB:g} allows")
                return
            for old in outdated:
                old.unlink()
            ledger.seek(0)
            ledger.truncate()
            ledger.write(str(used + image.nbytes))
            ledger.flush()
            _write(entry, image)

    def _used(self, noted: str, more: int) -> int:
        """Return the bytes in the folder: as noted, or counted where the note is missing or leaves no room (files may be gone)."""
        if noted.isdecimal() and int(noted) + more <= self.limit:
            return int(noted)
        return sum(file.stat().st_size for file in self.folder.glob("*/*.npy*"))

    def _stop(self, reason: str) -> None:
        self._adds = False
        worker = get_worker_info()
        if worker is None or worker.id == 0:  # one of a loader's processes speaks for all
            log.warning("no more decoded photos are kept: %s; training goes on, what is not there is decoded for every sample", reason)

    def _entry(self, path: Path, reduce_to: int | None) -> Path:
        status = path.stat()
        photo = digest(str(path.resolve()), str(reduce_to))
        state = digest(str(status.st_size), str(status.st_mtime_ns), PIL.__version__)
        return self.folder / photo[:2] / f"{photo}-{state}.npy"


def _mapped(entry: Path) -> ByteImage | None:
    try:
        image = np.lib.format.open_memmap(entry, mode="r")
    except Exception:  # not there, cut off, or damaged, of which numpy raises many kinds
        return None
    return image.view(np.ndarray) if image.dtype == np.uint8 and image.ndim == 3 else None


def _write(entry: Path, image: ByteImage) -> None:
    with whole_file(entry) as temporary, temporary.open("wb") as file:
        np.save(file, image)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave a whole file of zeros
