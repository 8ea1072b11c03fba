"""Building the chosen method, with the loss terms and the earlier stages that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from osediff_exp.losses.base import LossTerm
from osediff_exp.methods.base import Method, Parts
from osediff_exp.models.backbone import Backbone
from osediff_exp.tasks.loading import own_packages
from osediff_exp.tasks.stages import earlier_generators, earlier_runs


def build_method(config: DictConfig, backbone: Backbone, run_dir: Path | None = None) -> Method:
    """Return the method; weights are initialised from the seed, alike whichever terms there are.

    Args:
        run_dir: of the run; where it is a sweep's, the runs of earlier stages are looked for in that. None: they are not.
    """
    earlier = earlier_generators(earlier_runs(config, run_dir), backbone, packages=own_packages(config))
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
