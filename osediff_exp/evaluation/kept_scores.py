"""What the metrics said of pictures before their run was stopped: the next one in its folder asks only for the others."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from osediff_exp.evaluation.scoring import Measured, Scorer, pixels_hash
from osediff_exp.restoration.finished import fingerprint
from osediff_exp.restoration.picture_files import written_whole

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


_SUFFIX = ".measured.safetensors"


class KeptScores:
    """Measures pictures with ``scorer`` and keeps what comes of it, a file per pair of pictures.

    Files are named by the pixels of both pictures and the settings, so one that is found is of just this pair and these metrics. What a
    metric failed at is not kept.

    Args:
        scorer: that is asked for what is not there; it keeps no figure by this.
        folder: of the files; only this class writes there.
        settings: what decides the figures besides the pictures (metrics, version, device), as a fingerprint.
    """

    def __init__(self, scorer: Scorer, folder: Path, settings: str) -> None:
        self._scorer, self._folder, self._settings = scorer, folder, settings

    def measure(self, pred: Tensor, target: Tensor) -> Measured:
        """Return what :meth:`Scorer.measure` says of the output ``pred`` and the original ``target``, (1, 3, H, W) in [0, 1]."""
        path = self._folder / f"{fingerprint(self._settings, pixels_hash(pred), pixels_hash(target))}{_SUFFIX}"
        measured = _read(path)
        if measured is None:
            measured = self._scorer.measure(pred, target)
            if not measured.failed:
                _write(path, measured)
        return measured


def forget_scores(folder: Path) -> None:
    """Remove what :class:`KeptScores` has written to ``folder``: the run has its tables."""
    for path in [*folder.glob(f"*{_SUFFIX}"), *folder.glob(f".*{_SUFFIX}.part")]:
        path.unlink(missing_ok=True)
    with suppress(OSError):  # not there, or something else is
        folder.rmdir()


def _write(path: Path, measured: Measured) -> None:
    tensors = {"figures": torch.tensor(list(measured.figures.values()), dtype=torch.float64)}
    for key, parts in measured.described.items():
        tensors |= {f"{key}.{k}": part.cpu().contiguous() for k, part in enumerate(parts)}
    about = {
        "figures": list(measured.figures),
        "described": {key: len(parts) for key, parts in measured.described.items()},
        "refused": measured.refused,
        "original": measured.original,
    }
    with written_whole(path) as temporary:
        save_file(tensors, temporary, metadata={"about": json.dumps(about)})


def _read(path: Path) -> Measured | None:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads(file.metadata()["about"])
            figures = dict(zip(about["figures"], file.get_tensor("figures").tolist(), strict=True))
            described = {key: [file.get_tensor(f"{key}.{k}") for k in range(count)] for key, count in about["described"].items()}
            return Measured(figures, described, original=about["original"], refused=about["refused"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):  # none there, or a damaged one: measured again
        return None
