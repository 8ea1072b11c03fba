"""Which photo a picture is a crop of, by its name; and figures of pictures gathered by photo.

Crops of one photo are not independent: whatever says how sure a mean is, counts photos.
"""

from __future__ import annotations

import re
from collections import Counter
from math import fsum
from statistics import stdev
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping

STANDARD_ERROR = "_se"  # follows a figure's name

# As tools/make_photos.py names crops, TITLE_0 ... TITLE_99, and StableSR's DIV2K-Val, 0801_pch_00001. Camera files (IMG_1234, DSC_0012)
# and zero-padded numbers (Canon_001_LR4) are names of photos.
_CROP = re.compile(r"(?P<title>.+)_(?:0|[1-9]\d?)")
_PATCH = re.compile(r"(?P<title>.+)_pch_\d+")
_COUNTED = re.compile(r"(?P<title>.+)_(?:0\d+|\d{3,})")
_MOST_CROPS = 16  # that tools/make_photos.py cuts of one photo
_FEW_TITLES = 6  # fewer photos cannot be tested at all (docs/adr/0013)


def photos_of(names: Iterable[str]) -> dict[str, str]:
    """Return picture -> photo: crops ``TITLE_0``, ``TITLE_1``, ... or ``TITLE_pch_00001`` are of the photo ``TITLE``, any other name is a
    photo of its own.

    Numbers count pictures, and every picture is a photo, where they are no crops': where a title also has numbers that crops have not
    (``Canon_01``, ``b_100``), where all pictures would be of one photo (``img_1`` to ``img_24``), and where a few titles have more numbers
    each than crops are ever cut of a photo (``Canon_1`` to ``Canon_50`` and ``Nikon_1`` to ``Nikon_50``).
    """
    names = list(names)
    patches = {name: match["title"] for name in names if (match := _PATCH.fullmatch(name))}
    others = [name for name in names if name not in patches]
    counted = {match["title"] for name in others if (match := _COUNTED.fullmatch(name))}
    crops = {name: match["title"] for name in others if (match := _CROP.fullmatch(name)) and match["title"] not in counted}
    photos = {name: name for name in names} | patches | crops
    titles = set(crops.values())
    endless = len(titles) < _FEW_TITLES and len(crops) > _MOST_CROPS * len(titles)
    if crops and (endless or len(set(photos.values())) == 1):
        return photos | {name: name for name in crops}
    return photos


def photo_totals(values: Mapping[str, float], photos: Mapping[str, str] | None = None) -> dict[str, float]:
    """Return photo -> its share of the mean over pictures, times the number of photos: the mean over photos is the one over pictures.

    With as many crops of every photo this is the mean over its crops; else a photo with many crops has a large share whatever their values
    are: what a share deviates by says nothing about how sure the mean is (see :func:`by_photo`).

    Here and below ``photos`` is :func:`photos_of` of the whole test set, where not all of its pictures have a value: what a name means does
    not depend on which figure is looked at. None: all have one.
    """
    photos = photos_of(values) if photos is None else photos
    sums: Counter[str] = Counter()
    for name, value in values.items():
        sums[photos[name]] += value  # type: ignore[assignment]  # a Counter adds up floats too
    return {photo: total * len(sums) / len(values) for photo, total in sums.items()}


def photo_weights(names: Collection[str], photos: Mapping[str, str] | None = None) -> dict[str, float]:
    """Return photo -> its number of pictures over the mean number, 1 with as many pictures of every photo."""
    photos = photos_of(names) if photos is None else photos
    counts = Counter(photos[name] for name in names)
    return {photo: count * len(counts) / len(names) for photo, count in counts.items()}


def by_photo(values: Mapping[str, float], photos: Mapping[str, str] | None = None) -> dict[str, float]:
    """Return photo -> m + G / N sum_k (d_k - m) over its pictures k, with m the mean of all N pictures and G the number of photos.

    Their mean is m. Their deviations are the linearised residuals of m as a ratio of totals, sum d over N, when photos are drawn (W. G.
    Cochran, "Sampling Techniques", 3rd ed. 1977, chapters 6 and 9A): Student's interval of these values is the one of m. With as many
    crops of every photo they are the means over its crops; values that are all alike have no deviation, however crops are spread.
    """
    photos = photos_of(values) if photos is None else photos
    totals = photo_totals(values, photos)
    if len(set(Counter(photos[name] for name in values).values())) < 2:
        return totals
    mean = fsum(values.values()) / len(values)
    residuals = dict.fromkeys(totals, 0.0)
    for name, value in values.items():
        residuals[photos[name]] += value - mean
    return {photo: mean + residual * len(totals) / len(values) for photo, residual in residuals.items()}


def is_standard_error(key: str, keys: Container[str]) -> bool:
    """Tell whether the figure ``key`` is the standard error of another one of ``keys``."""
    return key.endswith(STANDARD_ERROR) and key.removesuffix(STANDARD_ERROR) in keys


def standard_error(values: Mapping[str, float], photos: Mapping[str, str] | None = None) -> float:
    """Return the standard error of the mean over pictures (name -> value), with the photo as the unit; NaN under two photos."""
    units = list(by_photo(values, photos).values())
    return stdev(units) / len(units) ** 0.5 if len(units) > 1 else float("nan")
