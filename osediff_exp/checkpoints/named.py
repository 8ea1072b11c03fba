"""Checkpoints that come with the package, by name; everything else is a path."""

from __future__ import annotations

from pathlib import Path

from osediff_exp.errors import UserError, nearest

_FOLDER = Path(__file__).parents[1] / "models" / "weights"
EMBEDDED = {"embedded": "tiny_restorer", "embedded:start": "tiny_start"}
"""Names of the LoRA folders inside the package: the restorer, and the start that experiments share. A version may come without."""

OTHER_RESTORERS = ("bicubic", "realesrgan")
"""Names of restorers that are no checkpoints, for ``restorers=`` of task=evaluate."""


def is_embedded(text: str | Path) -> bool:
    """Tell whether ``text`` names a checkpoint of the package; a file of that name is ``./embedded``."""
    return isinstance(text, str) and (text == "embedded" or text.startswith("embedded:"))


def checkpoint_path(text: str | Path) -> Path:
    """Return where the checkpoint called ``text`` lies: a name above, or a path as it is.

    Raises:
        UserError: the package has no such checkpoint, or the name is another restorer's and no path.
    """
    if not is_embedded(text):
        path = Path(text).expanduser()
        if text in OTHER_RESTORERS and not path.exists():
            raise UserError(f"{text} is no checkpoint: it can be evaluated, task=evaluate restorers=[{text}]")
        return path
    names = embedded_names()
    if text not in names:
        carried = f"carries {' and '.join(names)} only" if names else "carries no checkpoint"
        raise UserError(f"checkpoint {text}: this version of the package {carried}: give a path.{nearest(str(text), names)}")
    return _FOLDER / EMBEDDED[str(text)]


def embedded_names() -> list[str]:
    """Return the names of the checkpoints that this version of the package carries."""
    return [name for name, folder in EMBEDDED.items() if (_FOLDER / folder).is_dir()]


def name_of(path: Path) -> str | None:
    """Return the name of a checkpoint of the package, or None for any other path."""
    return next((name for name, folder in EMBEDDED.items() if path == _FOLDER / folder), None)
