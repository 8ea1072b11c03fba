"""Which output belongs to which original: by name, with everything that has no partner or cannot be compared named."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from osediff_exp.data.checks import find_bad_images
from osediff_exp.data.images import ByteImage, load_rgb
from osediff_exp.data.sources import ImageSource
from osediff_exp.errors import UserError, shown

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

Kind = Literal["missing", "extra", "mis-sized", "unreadable"]
KINDS: tuple[Kind, ...] = ("missing", "extra", "mis-sized", "unreadable")


@dataclass(frozen=True)
class Pair:
    """An output and its original, under their common name."""

    name: str
    pred: Path
    target: Path


@dataclass(frozen=True)
class Problem:
    """Why a picture is not scored: ``missing`` in the outputs, ``extra`` there, ``mis-sized`` or ``unreadable``; the detail names files."""

    name: str
    problem: Kind
    detail: str


@dataclass(frozen=True)
class Pairing:
    """Pairs and problems, each sorted by name, and a sentence (or "") about a suffix that keeps names from matching."""

    pairs: list[Pair]
    problems: list[Problem]
    hint: str


def pair_folders(pred: str, gt: str, *, pred_suffix: str = "", gt_suffix: str = "") -> Pairing:
    """Match the pictures of two folders (searched recursively) by file stem, whatever their type.

    Args:
        pred: folder of outputs.
        gt: folder of originals.
        pred_suffix: removed from the end of the outputs' stems where it stands there.
        gt_suffix: the same for the originals.

    Raises:
        UserError: a folder is missing or empty, two of its pictures share a name, or no name occurs in both.
    """
    outputs, originals = _by_name(pred, "pred", pred_suffix), _by_name(gt, "gt", gt_suffix)
    extra, missing = (sorted(ours.keys() - theirs.keys()) for ours, theirs in ((outputs, originals), (originals, outputs)))
    hint = _suffix_hint(extra, missing)
    if len(missing) == len(originals):
        examples = f"'{extra[0]}' in pred, '{missing[0]}' in gt"
        raise UserError(
            f"no picture of pred={pred} is named as one of gt={gt} (e.g. {examples}).{hint or ' Pictures are matched by name.'}"
        )
    problems = [Problem(name, "missing", f"no output for {shown(originals[name])}") for name in missing]
    problems += [Problem(name, "extra", f"no original for {shown(outputs[name])}") for name in extra]
    pairs = [Pair(name, outputs[name], originals[name]) for name in sorted(outputs.keys() & originals.keys())]
    return Pairing(pairs, problems, hint)


def _by_name(root: str, key: str, suffix: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    clashes = []
    for picture in ImageSource(root=root, key=key).pictures():
        name = picture.name.removesuffix(suffix) or picture.name
        if (other := found.setdefault(name, picture.path)) != picture.path:
            clashes.append(f"'{name}' ({other} and {picture.path})")
    if clashes:
        more = f" and {len(clashes) - 1} more" if len(clashes) > 1 else ""
        raise UserError(f"{key}={root} has two pictures named {clashes[0]}{more}: keep one of them, pictures are matched by name")
    return found


def _suffix_hint(extra: Collection[str], missing: Collection[str]) -> str:
    for key, longer, shorter in (("pred_suffix", extra, set(missing)), ("gt_suffix", missing, set(extra))):
        # A digit cannot start a suffix: 10 is not 1 with an ending.
        cuts = [(name, k) for name in longer for k in range(1, len(name)) if not name[k].isdigit()]
        counts = Counter(name[k:] for name, k in cuts if name[:k] in shorter)
        if counts:
            suffix, count = counts.most_common(1)[0]
            remedy = f"add {key}={suffix}" if re.fullmatch(r"[\w.+-]+", suffix) else "rename them"
            return f" {count} more would match without '{suffix}' at the end of their names in {key.split('_')[0]}: {remedy}"
    return ""


def read_pair(pair: Pair) -> tuple[ByteImage, ByteImage] | list[Problem]:
    """Return output and original, both (H, W, 3) uint8, or what is wrong with them."""
    images, problems = [], []
    for path in (pair.pred, pair.target):
        try:
            images.append(load_rgb(path))
        except Exception as error:  # Pillow's decoders raise many kinds; each means a bad file here
            problems.append(Problem(pair.name, "unreadable", _why_unreadable(path, error)))
    if problems:
        return problems
    pred, target = images
    if pred.shape != target.shape:
        sizes = [f"{image.shape[1]} x {image.shape[0]}" for image in images]
        detail = f"{shown(pair.pred)} is {sizes[0]}, {shown(pair.target)} {sizes[1]} (width x height)"
        return [Problem(pair.name, "mis-sized", detail)]
    return pred, target


def _why_unreadable(path: Path, error: Exception) -> str:
    return next((str(bad) for bad in find_bad_images([path], min_size=1, verify="full")), f"{shown(path)} ({error})")


def count_problems(problems: Collection[Problem]) -> Mapping[Kind, int]:
    """Return how many problems there are of each kind, zeros included."""
    counts = Counter(problem.problem for problem in problems)
    return {kind: counts[kind] for kind in KINDS}
