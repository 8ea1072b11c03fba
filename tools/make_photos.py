"""Build the HQ training set from free photos in Debian packages: ``make photos``, or ``python tools/make_photos.py FOLDER [CACHE]``.

``tools/photos.csv`` names every photo: package, version, path (``FILE.rcc!PATH`` lies inside a Qt resource file), split and title. The
packages are fetched with ``apt-get download`` and unpacked, not installed. Out of each photo come crops of 512 px, from full size and
reduced by 2 and by 4 (a large photo reduced is sharper), without blurred and flat ones: ``FOLDER/{train,dev,val}/TITLE_K.jpg`` and
``FOLDER/manifest.csv`` with package, licence, source, scale, corner and sharpness of each. Same versions, same files.

``--embedded`` also makes the photos inside the package (osediff_exp/data/photos): 60 training crops of 384 px and a 256 px crop of each
val photo, as WebP.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import math
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
EMBEDDED = HERE.parent / "osediff_exp" / "data" / "photos"
CROP = 512
LIMITS = {1: 7, 2: 6, 4: 3}  # crops of a photo by the factor it is reduced by
SHARP = 12.0  # variance of the Laplacian of the luma in 0..255
FLAT_BLOCK, MAX_FLAT = 3.0, 0.6  # standard deviation of a flat 32 px block, and the share of such blocks that is too much
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Photo:
    """A line of photos.csv."""

    package: str
    version: str
    path: str
    split: str
    title: str


@dataclass(frozen=True)
class Crop:
    """A window of a photo reduced by ``scale``, and the variance of its Laplacian."""

    pixels: Image.Image
    scale: int
    y: int
    x: int
    sharpness: float


def unpacked(package: str, version: str, cache: Path) -> Path:
    """Return the folder with the package's files, fetched at the first call."""
    folder = cache / f"{package}_{version.replace(':', '%3a')}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", f"{package}={version}"], cwd=cache, check=True, stdout=subprocess.DEVNULL)
        (archive,) = cache.glob(f"{package}_{version.replace(':', '%3a')}_*.deb")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder) + ".part"], check=True)
        archive.unlink()
        Path(str(folder) + ".part").rename(folder)
    return folder


def rcc_files(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of every file in a Qt resource file (``rcc --binary``: big-endian tree, names and data)."""
    magic, version, tree, data, names = struct.unpack_from(">4sIIII", content)
    if magic != b"qres":
        raise SystemExit("not a Qt resource file")
    size = 14 if version < 2 else 22

    def name(offset: int) -> str:
        (length,) = struct.unpack_from(">H", content, names + offset)
        return content[names + offset + 6 : names + offset + 6 + 2 * length].decode("utf-16-be")

    def walk(node: int, path: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * size
        name_offset, flags = struct.unpack_from(">IH", content, at)
        own = f"{path}/{name(name_offset)}" if node else ""
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">II", content, at + 6)
            for child in range(first, first + count):
                yield from walk(child, own)
            return
        (offset,) = struct.unpack_from(">I", content, at + 10)
        (length,) = struct.unpack_from(">I", content, data + offset)
        raw = content[data + offset + 4 : data + offset + 4 + length]
        yield own, zlib.decompress(raw[4:]) if flags & 1 else raw

    return walk(0, "")


def open_photo(root: Path, path: str) -> Image.Image:
    """Return a photo of an unpacked package as RGB."""
    file, _, inside = path.partition("!")
    if not inside:
        return Image.open(root / file).convert("RGB")
    content = next(content for name, content in rcc_files((root / file).read_bytes()) if name == inside)
    return Image.open(io.BytesIO(content)).convert("RGB")


def licence_of(root: Path, package: str, path: str) -> str:
    """Return the licence that the package's debian/copyright states: that of the last stanza whose pattern fits, suffixes aside."""
    text = (root / "usr/share/doc" / package / "copyright").read_text(errors="replace")
    if package == "krank":  # not in the machine-readable format
        return "public domain (images: Slava Anishenko)"
    tail = path.partition("!")[2].removeprefix("/gcompris/") or path
    licence = "see debian/copyright"
    for stanza in text.split("\n\n"):
        fields: dict[str, list[str]] = {}
        for line in stanza.splitlines():
            if line[:1] not in (" ", "\t", "") and ":" in line:
                key, _, value = line.partition(":")
                fields[key] = [value.strip()]
            elif fields:
                fields[key].append(line.strip())
        patterns = " ".join(fields.get("Files", [])).split()
        if "License" in fields and any(fits(tail, pattern) for pattern in patterns):
            blanket = " (blanket)" if patterns == ["*"] else ""
            licence = fields["License"][0] + blanket
    return licence


def fits(path: str, pattern: str) -> bool:
    """Tell whether a pattern of debian/copyright means an installed file; the build moves files and changes their suffixes."""
    if pattern == "*":
        return True
    own, given = (str(PurePosixPath(text).with_suffix("")) if PurePosixPath(text).suffix else text for text in (path, pattern))
    name = PurePosixPath(given).name
    return fnmatch.fnmatch(own, given) or ("*" not in name and PurePosixPath(own).name == name)


def laplacian_variance(luma: np.ndarray) -> float:
    """Return the variance of the 4-neighbour Laplacian of (H, W) in 0..255."""
    inner = luma[1:-1, 1:-1]
    return float((4 * inner - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]).var())


def flat_share(luma: np.ndarray) -> float:
    """Return the share of 32 px blocks without structure."""
    height, width = (side // 32 for side in luma.shape)
    blocks = luma[: height * 32, : width * 32].reshape(height, 32, width, 32).std(axis=(1, 3))
    return float((blocks < FLAT_BLOCK).mean())


def corners(side: int, size: int) -> list[int]:
    """Return evenly spaced corners of windows that cover a side."""
    count = 1 + math.ceil((side - size) / (0.7 * size) - 1e-9)
    return [round(corner) for corner in np.linspace(0, side - size, count)]


def windows(photo: Image.Image, scale: int, size: int) -> Iterator[Crop]:
    """Yield the usable windows of a grid over the photo reduced by ``scale``; neighbours share up to 30 % of a side."""
    small = photo.resize((photo.width // scale, photo.height // scale), Image.Resampling.LANCZOS) if scale > 1 else photo
    if min(small.size) < size:
        return
    columns, rows = (corners(side, size) for side in small.size)
    for y in rows:
        for x in columns:
            pixels = small.crop((x, y, x + size, y + size))
            luma = np.asarray(pixels.convert("L"), dtype=np.float64)
            sharpness = laplacian_variance(luma)
            if sharpness >= SHARP and flat_share(luma) <= MAX_FLAT:
                yield Crop(pixels, scale, y, x, sharpness)


def crops_of(photo: Image.Image, size: int) -> list[Crop]:
    """Return the sharpest windows of each scale."""
    chosen: list[Crop] = []
    for scale, limit in LIMITS.items():
        chosen += sorted(windows(photo, scale, size), key=lambda crop: -crop.sharpness)[:limit]
    return chosen


def read_list() -> list[Photo]:
    """Return the photos of photos.csv."""
    with (HERE / "photos.csv").open(newline="") as file:
        return [Photo(**row) for row in csv.DictReader(file)]


FIELDS = ["file", "split", "photo", "package", "version", "licence", "source_path", "scale", "y", "x", "sharpness"]


def row(photo: Photo, crop: Crop, file: str, licence: str) -> dict[str, object]:
    """Return a line of the manifest."""
    place = {"scale": 1 / crop.scale, "y": crop.y, "x": crop.x, "sharpness": round(crop.sharpness, 1)}
    return {"file": file, "split": photo.split, "photo": photo.title, "package": photo.package, "version": photo.version} | {
        "licence": licence, "source_path": photo.path} | place  # fmt: skip


def write_manifest(path: Path, rows: list[dict[str, object]]) -> None:
    """Write a manifest.csv."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def make(folder: Path, cache: Path) -> None:
    """Write the set."""
    photos, rows = read_list(), []
    for split in ("train", "dev", "val"):
        (folder / split).mkdir(parents=True, exist_ok=True)
    for photo in photos:
        root = unpacked(photo.package, photo.version, cache)
        licence = licence_of(root, photo.package, photo.path)
        for k, crop in enumerate(crops_of(open_photo(root, photo.path), CROP)):
            file = f"{photo.split}/{photo.title}_{k}.jpg"
            crop.pixels.save(folder / file, quality=95, subsampling=0)
            rows.append(row(photo, crop, file, licence))
    write_manifest(folder / "manifest.csv", rows)
    for split in ("train", "dev", "val"):
        own = [entry for entry in rows if entry["split"] == split]
        print(f"{split}: {len(own)} crops of {len({entry['photo'] for entry in own})} photos")


def make_embedded(cache: Path, *, num_train: int = 60, train_size: int = 384, val_size: int = 256, quality: int = 95) -> None:
    """Write the package's own photos: one crop a photo, the sharpest among photos reduced by 2 or more, spread over the packages."""
    rows: list[dict[str, object]] = []
    photos = read_list()
    for split, size in (("train", train_size), ("val", val_size)):
        (EMBEDDED / split).mkdir(parents=True, exist_ok=True)
        for old in (EMBEDDED / split).iterdir():
            old.unlink()
        candidates = []
        for photo in photos:
            if photo.split != split:
                continue
            root = unpacked(photo.package, photo.version, cache)
            picture = open_photo(root, photo.path)
            found = [crop for scale in (2, 4) for crop in windows(picture, scale, size)] or list(windows(picture, 1, size))
            if found:
                candidates.append((photo, max(found, key=lambda crop: crop.sharpness), licence_of(root, photo.package, photo.path)))
        if split == "train":
            candidates = spread(candidates, num_train)
        for photo, crop, licence in candidates:
            file = f"{split}/{photo.title}.webp"
            crop.pixels.save(EMBEDDED / file, quality=quality, method=6)
            rows.append(row(photo, crop, file, licence))
    write_manifest(EMBEDDED / "manifest.csv", rows)
    print(f"embedded: {len(rows)} pictures, {sum(p.stat().st_size for p in EMBEDDED.rglob('*.webp')) / 2**20:.1f} MiB")


def spread(candidates: list[tuple[Photo, Crop, str]], count: int) -> list[tuple[Photo, Crop, str]]:
    """Return ``count`` candidates, taking from every package in turn (evenly along its list), in the list's order."""
    packages: dict[str, list[int]] = {}
    for k, (photo, _, _) in enumerate(candidates):
        packages.setdefault(photo.package, []).append(k)
    orders = [sorted(own, key=lambda k, own=own: (own.index(k) * 0.618034) % 1) for own in packages.values()]
    chosen: list[int] = []
    while len(chosen) < min(count, len(candidates)):
        for order in orders:
            if order and len(chosen) < count:
                chosen.append(order.pop(0))
    return [candidates[k] for k in sorted(chosen)]


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if not argument.startswith("--")]
    target = Path(given[0] if given else "photos")
    store = Path(given[1] if len(given) > 1 else target / "packages")
    make(target, store)
    if "--embedded" in sys.argv:
        make_embedded(store)
