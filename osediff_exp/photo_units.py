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

# As tools/make_photos.py names crops: 0, 1, ... 99. Camera files (IMG_1234, DSC_0012) and zero-padded numbers are names of photos.
_CROP = re.compile(r"(?P<title>.+)_(0|[1-9]\d?)")


def photos_of(names: Iterable[str]) -> dict[str, str]:
    """Return picture -> photo: crops ``TITLE_0``, ``TITLE_1``, ... are of the photo ``TITLE``, any other name is a photo of its own.

    Where this would leave one photo only (``img_1`` to ``img_24``), the numbers count pictures, and every picture is a photo.
    """
    photos = {name: match["title"] if (match := _CROP.fullmatch(name)) else name for name in names}
    return photos if len(set(photos.values())) > 1 else {name: name for name in photos}


def photo_totals(values: Mapping[str, float]) -> dict[str, float]:
    """Return photo -> its share of the mean over pictures, times the number of photos: the mean over photos is the one over pictures.

    With as many crops of every photo this is the mean over its crops; else a photo with many crops has a large share whatever their values
    are: what a share deviates by says nothing about how sure the mean is (see :func:`by_photo`).
    """
    photos = photos_of(values)
    sums: Counter[str] = Counter()
    for name, value in values.items():
        sums[photos[name]] += value  # type: ignore[assignment]  # a Counter adds up floats too
    return {photo: total * len(sums) / len(values) for photo, total in sums.items()}


def photo_weights(names: Collection[str]) -> dict[str, float]:
    """Return photo -> its number of pictures over the mean number, 1 with as many pictures of every photo."""
    counts = Counter(photos_of(names).values())
    return {photo: count * len(counts) / len(names) for photo, count in counts.items()}


def by_photo(values: Mapping[str, float]) -> dict[str, float]:
    """Return photo -> m + G / N sum_k (d_k - m) over its pictures k, with m the mean of all N pictures and G the number of photos.

    Their mean is m. Their deviations are the linearised residuals of m as a ratio of totals, sum d over N, when photos are drawn (W. G.
    Cochran, "Sampling Techniques", 3rd ed. 1977, chapters 6 and 9A): Student's interval of these values is the one of m. With as many
    crops of every photo they are the means over its crops; values that are all alike have no deviation, however crops are spread.
    """
    photos = photos_of(values)
    totals = photo_totals(values)
    if len(set(Counter(photos.values()).values())) < 2:
        return totals
    mean = fsum(values.values()) / len(values)
    residuals = dict.fromkeys(totals, 0.0)
    for name, value in values.items():
        residuals[photos[name]] += value - mean
    return {photo: mean + residual * len(totals) / len(values) for photo, residual in residuals.items()}


def is_standard_error(key: str, keys: Container[str]) -> bool:
    """Tell whether the figure ``key`` is the standard error of another one of ``keys``."""
    return key.endswith(STANDARD_ERROR) and key.removesuffix(STANDARD_ERROR) in keys


def standard_error(values: Mapping[str, float]) -> float:
    """Return the standard error of the mean over pictures (name -> value), with the photo as the unit; NaN under two photos."""
    photos = list(by_photo(values).values())
    return stdev(photos) / len(photos) ** 0.5 if len(photos) > 1 else float("nan")
