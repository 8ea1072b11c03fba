"""Building the chosen method, with the loss terms and the earlier stages that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.errors import UserError
from osediff_exp.losses.base import LossTerm
from osediff_exp.methods.base import Method, Parts
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator_base import Generator

_CHECKPOINT = Path("checkpoints") / "last.ckpt"


def build_method(config: DictConfig, backbone: Backbone, run_dir: Path | None = None) -> Method:
    """Return the method; weights are initialised from the seed, alike whichever terms there are.

    Args:
        run_dir: of the run; the folder around it is searched for the runs of earlier stages. None: none is.
    """
    earlier = earlier_generators(config, backbone, run_dir)
    torch.manual_seed(config.seed)
    generator = instantiate(config.generator)(backbone=backbone)
    parts = Parts(backbone=backbone, generator=generator, terms=build_terms(config, backbone), earlier=earlier)
    return instantiate(config.method.training)(parts)


def term_nodes(config: DictConfig) -> dict[str, Any]:
    """Return the configured loss terms of weight above 0; a method with a loss of its own has none."""
    nodes = (config.get("loss") or {}).get("terms") or {}
    return {str(name): node for name, node in nodes.items() if node is not None and node.weight != 0}


def build_terms(config: DictConfig, backbone: Backbone) -> dict[str, LossTerm]:
    """Return the loss terms of weight above 0, attached to the backbone."""
    terms = {name: instantiate(node) for name, node in term_nodes(config).items()}
    for term in terms.values():
        torch.manual_seed(config.seed + 1)  # a term starts alike whichever others there are
        term.attach(backbone)
    return terms


def earlier_generators(config: DictConfig, backbone: Backbone, run_dir: Path | None) -> dict[str, Generator]:
    """Return the generators of the finished stages that ``method.needs`` names, frozen, on ``backbone``.

    Raises:
        UserError: a run is missing, or was trained on another backbone.
    """
    found = {}
    for name, path in (config.method.get("needs") or {}).items():
        made_by = OmegaConf.to_container(config.method.made_by[name])
        assert isinstance(made_by, dict)
        if (made_by["method"], made_by.get("stage")) == (config.method.name, config.method.stage):
            continue  # this run is that stage
        where = path or _in_sweep(made_by, run_dir, seed=config.seed)
        if where is None:
            raise UserError(f"method={config.method.name} needs a finished run of {_command(made_by)}: give method.needs.{name}=RUN")
        try:
            found[str(name)] = load_checkpoint(where, backbone=backbone).generator.requires_grad_(False).eval()
        except UserError as error:
            raise UserError(f"method.needs.{name}={where}: {error}") from error
    return found


def _command(made_by: Mapping[Any, Any]) -> str:
    return f"method={made_by['method']}" + (f" method.stage={made_by['stage']}" if made_by.get("stage") else "")


def _in_sweep(made_by: Mapping[Any, Any], run_dir: Path | None, *, seed: int) -> Path | None:
    """Return the finished run beside ``run_dir`` that is of this method and stage; one of the same seed goes first."""
    runs = []
    for folder in sorted(run_dir.parent.iterdir()) if run_dir is not None and run_dir.parent.is_dir() else []:
        if folder != run_dir and all((folder / name).is_file() for name in ("result.json", "config.yaml", _CHECKPOINT)):
            theirs = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
            method = theirs.get("method") or {}
            if (method.get("name"), method.get("stage")) == (made_by["method"], made_by.get("stage")):
                runs.append((theirs.get("seed") != seed, folder.name, folder))
    return min(runs)[-1] if runs else None
