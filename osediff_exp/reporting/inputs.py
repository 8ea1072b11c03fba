"""What the arms were tested on: whether pictures of one name are the same original, and the same low-quality picture of it.

The figures of the bicubic enlargement tell inputs apart, picture by picture; the saved originals tell why they differ. Evaluations and
scores name their originals by a hash, with or without a bicubic enlargement beside them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

from osediff_exp.picture_header import open_picture
from osediff_exp.reporting.figures import as_number, is_cost, metric_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from osediff_exp.reporting.arms import Row
    from osediff_exp.reporting.runs import Run

BICUBIC = "bicubic_"
ORIGINALS = "originals"
"""In ``result.json``: the hash of the originals' names and pixels."""
_EXACT = ("psnr", "ssim")  # where there are any, they decide: networks and fits differ more between machines
_TOLERANCE = 1e-3  # relative: what rounding on different machines may change
_MOST_LABELS = 3

Seen = Literal["same", "other inputs", "other originals"]


def of_inputs(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of the inputs: what bicubic enlargement took is none of them."""
    bicubic = {key.removeprefix(BICUBIC): value for key, value in result.items() if key.startswith(BICUBIC)}
    return {key: value for key, value in bicubic.items() if not is_cost(key)}


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two sets of figures are the same up to the rounding that differs between machines (1e-3 relative)."""
    pairs = [(as_number(one[key]), as_number(other[key])) for key in one.keys() & other.keys()]
    return all(a == b or (a is not None and b is not None and abs(a - b) <= _TOLERANCE * max(abs(a), abs(b))) for a, b in pairs)


def tested_on(row: Row) -> Run | None:
    """Return the run that tells what an arm, or a bicubic reference, was tested on: one with a table of pictures where there is any."""
    return row.of or next((run for run in row.done if run.per_image), next(iter(row.done), None))


def seen(one: Run, other: Run) -> Seen:
    """Tell whether two runs were tested on the same pictures, as far as they have pictures of the same names.

    Where the inputs differ and no saved pictures prove that the originals are the same, they count as others. Without figures of the
    inputs, and without saved originals, nothing speaks against their being the same.
    """
    if not (one.per_image and other.per_image):
        return "same" if agree(of_inputs(one.result), of_inputs(other.result)) else "other inputs"
    if one.per_image.keys() == other.per_image.keys() and _named_otherwise(one, other):
        return "other originals"
    shared = [name for name in one.per_image if name in other.per_image]
    mine, theirs = ({name: _of_picture(run.per_image[name]) for name in shared} for run in (one, other))
    known = any(mine.values()) and any(theirs.values())
    apart = [name for name in shared if not agree(mine[name], theirs[name])] if known else shared
    originals = [_same_picture(one.pictures.get("hq", {}).get(name), other.pictures.get("hq", {}).get(name)) for name in apart]
    if False in originals or (known and apart and True not in originals):
        return "other originals"
    return "other inputs" if known and apart else "same"


def _named_otherwise(one: Run, other: Run) -> bool:
    first, second = (run.result.get(ORIGINALS) for run in (one, other))
    return bool(first and second and first != second)


def _of_picture(values: Mapping[str, float]) -> dict[str, float]:
    """Return a picture's own bicubic figures: its part in the figures of a set depends on the others."""
    figures = {key: value for key, value in of_inputs(values).items() if not metric_named(key).of_set}
    return {key: figures[key] for key in _EXACT if key in figures} or figures


def _same_picture(one: Path | None, other: Path | None) -> bool | None:
    """Whether two files hold the same pixels; None where one is missing or damaged."""
    if one is None or other is None:
        return None
    try:
        return one.read_bytes() == other.read_bytes() or _pixels(one) == _pixels(other)
    except (OSError, SyntaxError, ValueError):  # what is raised of damaged files
        return None


def _pixels(path: Path) -> tuple[tuple[int, int], str]:
    with open_picture(path) as image:
        return image.size, hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def input_groups(arms: Sequence[Row]) -> list[tuple[list[Row], Seen]]:
    """Return the arms with figures in groups that were tested on the same pictures, each with what parts it from the first."""
    groups: list[tuple[list[Row], Seen]] = []
    for arm in arms:
        run = tested_on(arm)
        if run is None:
            continue
        for members, _ in groups:
            first = tested_on(members[0])
            if first is not None and seen(first, run) == "same":
                members.append(arm)
                break
        else:
            first = tested_on(groups[0][0][0]) if groups else None
            groups.append(([arm], seen(first, run) if first is not None else "same"))
    return groups


def inputs_note(groups: Sequence[tuple[Sequence[Row], Seen]]) -> str:
    """Return the sentence on arms that were not tested on the same pictures; "" where all were."""
    if len(groups) < 2:
        return ""
    listed = "; ".join(_listed([row.label for row in members]) for members, _ in groups)
    if any(how == "other originals" for _, how in groups):
        hashed = all(run is not None and run.result.get(ORIGINALS) for members, _ in groups for run in [tested_on(members[0])])
        advice = "" if hashed else " Where only the degradation differs, images/hq of the run folders would show it."
        return (
            f"The arms were tested on different originals, though pictures share their names ({listed}): arms of different groups are not "
            f"paired, and no best is marked.{advice}"
        )
    return (
        f"The arms were tested on different inputs ({listed}), so each group has its own bicubic reference and no best is marked. "
        "val_degradation=NAME gives all arms the same ones."
    )


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    return ", ".join(labels[:_MOST_LABELS]) + more
