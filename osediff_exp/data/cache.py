"""A bounded in-memory cache of decoded photos, so that a small run does not decode a JPEG for every sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.data.images import ByteImage, load_rgb
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


class ImageLoader:
    """Loads photos as (H, W, 3) uint8 and keeps the first ones that fit.

    Nothing is ever dropped: samples are drawn uniformly, so any fixed subset of the photos is as good as the most recent ones. Each
    loader worker has its own cache; the limit is per process.

    Args:
        cache_images: False or 0: no cache; True: no limit; a number: the limit in MiB.
        reduce_to: see :func:`osediff_exp.data.images.load_rgb`.
    """

    def __init__(self, *, cache_images: bool | int = False, reduce_to: int | None = None) -> None:
        self.reduce_to = reduce_to
        self._free = float("inf") if cache_images is True else int(cache_images) * MIB
        self._images: dict[Path, ByteImage] = {}

    def __call__(self, path: Path) -> ByteImage:
        """Return the photo; read-only where it is kept in the cache.

        Raises:
            UserError: the file cannot be decoded.
        """
        if (cached := self._images.get(path)) is not None:
            return cached
        try:
            image = load_rgb(path, reduce_to=self.reduce_to)
        except Exception as error:  # Pillow's decoders raise many kinds; its own message often lacks the path
            raise UserError(f"{path} cannot be decoded ({error}): set data.verify=full to find every such image before training") from error
        if image.nbytes <= self._free:
            self._free -= image.nbytes
            image.setflags(write=False)
            self._images[path] = image
        return image
