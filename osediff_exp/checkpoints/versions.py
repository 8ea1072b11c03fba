"""Which program wrote a checkpoint, and whether this one can read it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch

import osediff_exp
from osediff_exp.errors import UserError

FORMAT = 1
"""Of checkpoints and exported folders; raised when an older program could no longer read what a newer one writes."""


def versions() -> dict[str, str]:
    """Return the versions of what computes, as plain text."""
    libraries = {name: version(name) for name in ("diffusers", "peft")}
    return {"osediff_exp": osediff_exp.__version__, "python": platform.python_version(), "torch": str(torch.__version__)} | libraries


def check_format(content: Mapping[str, Any], where: str) -> None:
    """Raise UserError for what a newer program wrote in a format that this one does not know."""
    if content.get("format", FORMAT) != FORMAT:
        writer = (content.get("versions") or {}).get("osediff_exp", "of the version that wrote it")
        raise UserError(
            f"{where} has format {content['format']}, this program ({osediff_exp.__version__}) reads {FORMAT}: use osediff_exp {writer}"
        )
