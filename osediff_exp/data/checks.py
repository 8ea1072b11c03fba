"""Checking every listed image before training starts, so that a damaged file does not end a run at three in the morning."""

from __future__ import annotations

import logging
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import UnidentifiedImageError

from osediff_exp.data.images import load_rgb
from osediff_exp.errors import UserError, shown
from osediff_exp.picture_header import open_picture, unidentified

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from osediff_exp.data.sources import Picture

Verify = Literal["header", "full"]
OnBadImages = Literal["refuse", "skip"]
log = logging.getLogger(__name__)

REPORT_NAME = "bad_images.txt"
_NAMED = 10


@dataclass(frozen=True)
class BadImage:
    """An image that cannot be used, and why (one short clause)."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{shown(self.path)} ({self.reason})"


def find_bad_images(paths: Sequence[Path], *, min_size: int, verify: Verify = "header") -> list[BadImage]:
    """Open every file once and return the unusable ones in order.

    Args:
        paths: files to open.
        min_size: smallest allowed shorter side in pixels.
        verify: ``header`` reads kind and size only; ``full`` decodes the pixels too and so finds truncated files.
    """
    check: Callable[[Path], str] = lambda path: _complaint(path, min_size, verify)  # noqa: E731 - map needs one argument
    with ThreadPoolExecutor(max_workers=min(32, 4 * (os.cpu_count() or 1))) as pool:
        reasons = pool.map(check, paths)
        return [BadImage(path, reason) for path, reason in zip(paths, reasons, strict=True) if reason]


def _complaint(path: Path, min_size: int, verify: Verify) -> str:
    try:
        with open_picture(path) as image:
            width, height = image.size  # as stored: a rotation by EXIF does not change the shorter side, and asking for it decodes a PNG
        if min(width, height) < min_size:
            return f"{width} x {height}, needs {min_size} x {min_size}"
        if verify == "full":
            load_rgb(path)
    except FileNotFoundError:
        return "does not exist"
    except MemoryError:
        return "its pixels do not fit into memory"
    except UnidentifiedImageError:
        return unidentified(path)
    except Exception as error:  # Pillow's decoders raise many kinds (struct.error, SyntaxError, ...); each means a bad file here
        return "unreadable: " + " ".join(str(error).split())
    return ""


class ImageCheck:
    """Collects the unusable images of several image lists, so that the user hears of all of them at once."""

    def __init__(self, *, verify: Verify = "header") -> None:
        self.verify: Verify = verify
        self._seen: set[Path] = set()
        self._bad: dict[Path, BadImage] = {}  # a file may be in several lists

    def usable(self, pictures: Sequence[Picture], *, min_size: int) -> list[Picture]:
        """Return the pictures whose file can be used at ``min_size`` pixels, and remember the others."""
        paths = list(dict.fromkeys(picture.path for picture in pictures))
        bad = find_bad_images(paths, min_size=min_size, verify=self.verify)
        self._seen.update(paths)
        unusable = {image.path: image for image in bad}
        self._bad |= {path: image for path, image in unusable.items() if path not in self._bad}
        return [picture for picture in pictures if picture.path not in unusable]

    def finish(self, *, on_bad: OnBadImages, report_dir: Path | None = None) -> None:
        """Write the unusable images to ``bad_images.txt`` (one per line) in ``report_dir``, where given, and refuse or skip them.

        Raises:
            UserError: under ``refuse``, with the first ten images and the number of the others.
        """
        if not self._bad:
            return
        bad = list(self._bad.values())
        report = _write_report(bad, report_dir) if report_dir else None
        others = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        listed = f" (all in {report})" if report else ""
        what = f"{', '.join(map(str, bad[:_NAMED]))}{others}{listed}"
        if on_bad == "refuse":
            remedy = "mend or remove them, or set data.bad_images=skip"
            raise UserError(f"{len(bad)} of {len(self._seen)} images cannot be used: {what}; {remedy}")
        log.warning("%d of %d images are left out: %s", len(bad), len(self._seen), what)


def _write_report(bad: Sequence[BadImage], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=folder, prefix=REPORT_NAME, delete=False) as file:
        file.writelines(f"{image}\n" for image in bad)
    target = folder / REPORT_NAME
    Path(file.name).replace(target)
    return target
