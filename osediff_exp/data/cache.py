"""Loading photos: from memory where they are kept there, from the disk's decoded ones, or from their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from osediff_exp.data.images import ByteImage, load_rgb
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from osediff_exp.data.photo_store import PhotoStore

MIB = 1 << 20


@dataclass
class _Room:
    """Bytes that may still be kept."""

    free: float


class ImageLoader:
    """Loads photos as (H, W, 3) uint8 and keeps the first ones that fit into memory.

    Nothing is ever dropped: samples are drawn uniformly, so any fixed subset of the photos is as good as the most recent ones. Each
    loader worker has its own cache; the limit is per process, for all loaders that :meth:`beside` has made of one.

    Args:
        cache_images: False or 0: no cache; True: no limit; a number: the limit in MiB.
        reduce_to: see :func:`osediff_exp.data.images.load_rgb`.
        store: decoded photos on disk, read where they are there and added where they are not.
    """

    def __init__(self, *, cache_images: bool | int = False, reduce_to: int | None = None, store: PhotoStore | None = None) -> None:
        self.reduce_to, self.store = reduce_to, store
        self._room = _Room(float("inf") if cache_images is True else int(cache_images) * MIB)
        self._images: dict[Path, ByteImage] = {}

    def beside(self) -> ImageLoader:
        """Return a loader that reduces nothing and has no store, for the same memory: what one keeps, the other cannot."""
        loader = ImageLoader()
        loader._room = self._room
        return loader

    def __call__(self, path: Path) -> ByteImage:
        """Return the photo; read-only where it is kept in memory or on disk.

        Raises:
            UserError: the file cannot be decoded.
        """
        if (cached := self._images.get(path)) is not None:
            return cached
        image = self._load(path)
        if image.nbytes <= self._room.free:
            self._room.free -= image.nbytes
            image = np.require(image, requirements="O")  # a mapped file becomes memory: a process may map some 65,000 files at most
            image.setflags(write=False)
            self._images[path] = image
        return image

    def _load(self, path: Path) -> ByteImage:
        if self.store is not None and (kept := self.store.get(path, reduce_to=self.reduce_to)) is not None:
            return kept
        try:
            image = load_rgb(path, reduce_to=self.reduce_to)
        except Exception as error:  # Pillow's decoders raise many kinds; its own message often lacks the path
            raise UserError(f"{path} cannot be decoded ({error}): set data.verify=full to find every such image before training") from error
        if self.store is not None:
            self.store.add(path, image, reduce_to=self.reduce_to)
        return image
