"""Pictures inside the page, as data addresses of a bounded total size."""

from __future__ import annotations

import base64
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from osediff_exp.reporting.pictures import Pictures, load_picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUDGET = 12_000_000  # characters of base64; the rest of the page (curves, text) stays below two million
_MAX_SIDE = 512
_QUALITIES = ((92, 0), (85, 2))  # JPEG quality and chroma subsampling (0: none, 2: 4:2:0), tried in this order


@dataclass(frozen=True)
class Embedded:
    """Data addresses by file, the picture names they cover, and a sentence on how the pictures are stored."""

    addresses: dict[Path, str]
    names: list[str]
    note: str


def embed(pictures: Pictures, budget: int = BUDGET) -> Embedded:
    """Return the pictures pixel for pixel (PNG); where they exceed ``budget`` as JPEG, and only as many rows as fit."""
    files = [path for column in pictures.columns for path in column.files.values()]
    # The sizes of the files tell at once whether it is worth while to read them all.
    fits = sum(path.stat().st_size for path in files if path.is_file()) * 4 / 3 <= budget
    exact, names = _embed_rows(pictures, budget, _exact) if fits else ({}, [])
    if len(names) == len(pictures.names):
        return Embedded(exact, names, "Pictures are stored pixel for pixel (PNG).")
    smaller, names, quality = _as_jpeg(pictures, budget)
    note = f"To keep the page small, pictures are stored as JPEG (quality {quality}, at most {_MAX_SIDE} px)"
    if len(names) < len(pictures.names):
        note += f" and only {len(names)} of {len(pictures.names)} are shown"
    return Embedded(smaller, names, f"{note}; the exact files lie in the run folders.")


def _as_jpeg(pictures: Pictures, budget: int) -> tuple[dict[Path, str], list[str], int]:
    """Return addresses, the names that they cover, and the JPEG quality: the first that fits, else the last with as many rows as fit."""
    sample = replace(pictures, names=pictures.names[:: max(1, len(pictures.names) - 1)][:2])
    smaller: dict[Path, str] = {}
    names: list[str] = []
    for quality, subsampling in _QUALITIES:
        encode = partial(_jpeg, quality=quality, subsampling=subsampling)
        # Two rows tell whether to try the rest: each attempt decodes every picture again.
        sampled, _ = _embed_rows(sample, budget, encode) if (quality, subsampling) != _QUALITIES[-1] else ({}, [])
        if sum(map(len, sampled.values())) * len(pictures.names) <= budget * len(sample.names):
            smaller, names = _embed_rows(pictures, budget, encode)
        if len(names) == len(pictures.names):
            break
    return smaller, names, quality


def _embed_rows(pictures: Pictures, budget: int, encode: Callable[[Path], str]) -> tuple[dict[Path, str], list[str]]:
    addresses: dict[Path, str] = {}
    names: list[str] = []
    left = budget
    with ThreadPoolExecutor() as pool:  # Pillow lets go of the interpreter while it decodes and encodes
        for name in pictures.names:
            paths = [path for column in pictures.columns if (path := column.files.get(name))]
            row = dict(zip(paths, pool.map(encode, paths), strict=True))
            left -= sum(map(len, row.values()))
            if left < 0:
                break
            names.append(name)
            addresses |= {path: address for path, address in row.items() if address}
    return addresses, names


def _exact(path: Path) -> str:
    return _address("png", path.read_bytes()) if load_picture(path) else ""


def _jpeg(path: Path, quality: int, subsampling: int) -> str:
    image = load_picture(path)
    if image is None:
        return ""
    image.thumbnail((_MAX_SIDE, _MAX_SIDE))
    data = io.BytesIO()
    image.save(data, format="JPEG", quality=quality, subsampling=subsampling)
    return _address("jpeg", data.getvalue())


def _address(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
