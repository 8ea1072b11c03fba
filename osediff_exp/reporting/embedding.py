"""Pictures inside the page, as data addresses of a bounded total size."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osediff_exp.reporting.pictures import Pictures, load_picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUDGET = 5_000_000  # characters of base64; the rest of the page (curves, text) stays far below one million
_MAX_SIDE = 512
_QUALITY = 90


@dataclass(frozen=True)
class Embedded:
    """Data addresses by file, the picture names they cover, and a sentence on how the pictures are stored."""

    addresses: dict[Path, str]
    names: list[str]
    note: str


def embed(pictures: Pictures, budget: int = BUDGET) -> Embedded:
    """Return the pictures pixel for pixel (PNG); where they exceed ``budget`` as JPEG, and only as many rows as fit."""
    exact, names = _embed_rows(pictures, budget, _exact)
    if len(names) == len(pictures.names):
        return Embedded(exact, names, "Pictures are stored pixel for pixel (PNG).")
    smaller, names = _embed_rows(pictures, budget, _jpeg)
    note = f"To keep the page small, pictures are stored as JPEG (quality {_QUALITY}, at most {_MAX_SIDE} px)"
    if len(names) < len(pictures.names):
        note += f" and only {len(names)} of {len(pictures.names)} are shown"
    return Embedded(smaller, names, f"{note}; the exact files lie in the run folders.")


def _embed_rows(pictures: Pictures, budget: int, encode: Callable[[Path], str]) -> tuple[dict[Path, str], list[str]]:
    addresses: dict[Path, str] = {}
    names: list[str] = []
    left = budget
    for name in pictures.names:
        row = {path: encode(path) for column in pictures.columns if (path := column.files.get(name))}
        left -= sum(map(len, row.values()))
        if left < 0:
            break
        names.append(name)
        addresses |= {path: address for path, address in row.items() if address}
    return addresses, names


def _exact(path: Path) -> str:
    return _address("png", path.read_bytes()) if load_picture(path) else ""


def _jpeg(path: Path) -> str:
    image = load_picture(path)
    if image is None:
        return ""
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=_QUALITY, subsampling=0)
    return _address("jpeg", data.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
