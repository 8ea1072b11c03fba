"""One check: what was looked at, how it stands, and what to do."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from omegaconf import DictConfig

Status = Literal["ok", "warning", "error", "note"]
LOG = "doctor.log"


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: key of result.json.
        status: ``ok``; ``warning``: something optional is missing; ``error``: something that the chosen configuration needs is missing or
            broken; ``note``: no judgement.
        detail: what was found, one line.
        remedy: what to do; empty where nothing is to be done.
    """

    name: str
    status: Status
    detail: str
    remedy: str = ""


CheckFunction = Callable[[DictConfig, Path], Check]
"""``check(config, run_dir)``; its name is the check's."""


def examine(function: CheckFunction, config: DictConfig, run_dir: Path) -> Check:
    """Run one check; where it raises, that is a red line of its own and the traceback goes to ``doctor.log`` in the run folder."""
    try:
        return function(config, run_dir)
    except Exception as error:
        with (run_dir / LOG).open("a", encoding="utf-8") as log:
            log.write(traceback.format_exc() + "\n")
        detail = f"cannot be checked: {type(error).__name__}: {first_line(error)}"
        return Check(function.__name__, "error", detail, f"mend what the message names; the traceback is in {run_dir / LOG}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type's name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
