"""This program's own checkpoints: reading what training wrote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from osediff_exp.checkpoints.base import Call, Loaded, assemble
from osediff_exp.checkpoints.fitting import check_fingerprint, check_tensors
from osediff_exp.checkpoints.versions import FORMAT, check_format, versions
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone

_KEYS = {"state_dict", "steps_taken", "backbone"}
_PREFIX = "generator."
_AVERAGING = "GeneratorEMA"


def run_record(config: Any) -> dict[str, Any]:
    """Return what a run tells of itself in every checkpoint: its configuration, plain data with string keys, and the versions."""
    return {"config": config, "versions": versions()}


def stamp(*, steps: int, backbone: Backbone, fingerprint: str) -> dict[str, Any]:
    """Return what a checkpoint of ours records beside its weights, as plain data that a weights-only reader takes."""
    return {"format": FORMAT, "steps_taken": steps, "backbone": {"fingerprint": fingerprint, "source": backbone.source}}


def is_own(content: Mapping[str, Any]) -> bool:
    """Tell whether a file's content is a checkpoint of this program's training."""
    return content.keys() >= _KEYS


def check_resumable(checkpoint: Mapping[str, Any], own: Mapping[str, Tensor], backbone: Backbone, fingerprint: str) -> None:
    """Raise UserError where a training of the tensors ``own`` on ``backbone`` cannot go on from the checkpoint."""
    if absent := _KEYS - checkpoint.keys():
        raise UserError(f"the checkpoint is not of this program's training (no '{min(absent)}' in it): give a run's last.ckpt")
    check_format(checkpoint, "the checkpoint")
    check_tensors(checkpoint["state_dict"], own)
    check_fingerprint(checkpoint["backbone"], backbone, fingerprint)


def load_own(
    path: Path,
    content: Mapping[str, Any],
    *,
    settings: Mapping[str, Any] | None,
    call: Call,
    average: bool,
) -> Loaded:
    """Return what the checkpoint ``content`` of the file ``path`` restores with; see ``load_checkpoint``."""
    check_format(content, str(path))
    return assemble(
        configuration(content, path, settings),
        generator_tensors(content, average=average),
        trained_on=content["backbone"],
        call=call,
        steps=int(content["steps_taken"]),
        format="osediff_exp",
    )


def generator_tensors(content: Mapping[str, Any], *, average: bool) -> dict[str, Tensor]:
    """Return the generator's tensors by its own names: the moving average that validation used if it is there and asked for."""
    saved = {name.removeprefix(_PREFIX): tensor for name, tensor in content["state_dict"].items() if name.startswith(_PREFIX)}
    averaged = ((content.get("callbacks") or {}).get(_AVERAGING) or {}).get("average")
    return saved | averaged if average and averaged else saved  # what does not train has no average


def configuration(content: Mapping[str, Any], path: Path, settings: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the run's configuration: the checkpoint's, else its run folder's ``config.yaml``, else ``settings``.

    Raises:
        UserError: if there is none.
    """
    found = recorded(content, path)
    if found is None and settings is None:
        raise UserError(f"{path} carries no configuration, and its run folder has no config.yaml: put the file back into its run folder")
    return dict(settings or {}) if found is None else found


def recorded(content: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """Return the configuration that the checkpoint carries, or its run folder's ``config.yaml``; None where there is none."""
    if content.get("config"):
        return dict(content["config"])
    files = [folder / "config.yaml" for folder in path.absolute().parents[:2]]
    return next((_read_yaml(file) for file in files if file.is_file()), None)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({str(error).splitlines()[0]}): restore the run's configuration") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} holds no configuration: restore the run's configuration")
    return config
