"""Mistakes that show only when the arms of a command are set side by side. Composed configurations in, one line out."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from omegaconf import DictConfig

_WRITES_OUTPUT = ("restore", "export", "tag")
_UNITS = ("lambda1", "lambda2")


def check_side_by_side(arms: Sequence[DictConfig], typed: Sequence[str]) -> None:
    """Raise UserError where arms would replace each other's output, a stage stands before the one that it needs, or a weight that was
    typed weighs nothing in any arm.

    Args:
        arms: the composed configurations, in the order in which they run.
        typed: the keys that the command names.
    """
    _check_outputs(arms)
    _check_stages(arms)
    _check_weights(arms, typed)


def _check_outputs(arms: Sequence[DictConfig]) -> None:
    outputs = [output for arm in arms if arm.task.name in _WRITES_OUTPUT and (output := _output(arm)) is not None]
    for one, other in pairwise(sorted(outputs)):
        if one == other:
            raise UserError(
                f"output={one} is the same for several runs, each of which would replace the outputs of the one before: leave it out "
                "(each run folder gets its own), or make it depend on what is swept, such as output='out/${upscale}'"
            )


def _output(arm: DictConfig) -> str | None:
    raw: Any = OmegaConf.to_container(OmegaConf.masked_copy(arm, ["output"]), resolve=False)
    if raw.get("output") is None or "${hydra" in str(raw["output"]):  # a running job's own
        return None
    return str(OmegaConf.select(arm, "output"))


def _check_stages(arms: Sequence[DictConfig]) -> None:
    stages = [_stage(OmegaConf.select(arm, "method.name"), OmegaConf.select(arm, "method.stage")) for arm in arms]
    for place, arm in enumerate(arms):
        for name, path in (OmegaConf.select(arm, "method.needs") or {}).items() if arm.task.name == "train" else []:
            made_by: Any = OmegaConf.select(arm, f"method.made_by.{name}") or {}
            needed = _stage(made_by.get("method"), made_by.get("stage"))
            if path is None and needed != stages[place] and needed in stages[place:] and needed not in stages[:place]:
                raise UserError(f"{stages[place]} takes a finished run of {needed}, which this sweep makes later: put {needed} first")


def _stage(method: object, stage: object) -> str:
    return f"method={method}" + (f" method.stage={stage}" if stage else "")


def _check_weights(arms: Sequence[DictConfig], typed: Sequence[str]) -> None:
    for key in _UNITS:
        if key in typed and all(arm.task.name == "train" and not _weighs(arm, key) for arm in arms):
            terms = list(OmegaConf.select(arms[0], "loss.terms") or {})
            what = f"none of loss/terms=[{','.join(map(str, terms))}] is" if terms else f"method={arms[0].method.name} has no term that is"
            raise UserError(f"{key} has no effect: {what} weighted by it; leave it out, or choose a term that is")


def _weighs(arm: DictConfig, key: str) -> bool:
    node = OmegaConf.select(arm, "loss.terms")
    return node is not None and f"${{{key}}}" in OmegaConf.to_yaml(node, resolve=False)
