"""What restoring a picture with a trained generator costs, counted without computing anything."""

from __future__ import annotations

import logging

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from osediff_exp.models.backbone import Backbone
from osediff_exp.models.complexity import count_sampling_macs
from osediff_exp.models.empty_backbone import empty_like

log = logging.getLogger(__name__)

SIZE = 512
"""Pixels of a side of the picture: that of the paper's Table 2, and of ``task=complexity``."""


def restoring_macs(config: DictConfig, backbone: Backbone, *, own_steps: int, sampling_steps: int) -> dict[str, float | int | str | None]:
    """Return ``macs_g``, 10^9 MACs of one picture in the method's own steps, and ``macs_g_sampled`` in those that were sampled.

    Counted is what ``task=complexity`` counts, on a copy on the meta device: a second or two, and no memory. What cannot be counted there
    (a method of one's own may look at values) is None, with a line in the log: a finished training is not lost for it.
    """
    try:
        empty = empty_like(backbone)
        with torch.device("meta"):
            generator = instantiate(config.generator)(backbone=empty)
            macs = count_sampling_macs(empty, generator, size=SIZE, steps=(own_steps, sampling_steps))
    except Exception as error:
        log.warning("the MACs of %s could not be counted: %s: %s", config.method.name, type(error).__name__, " ".join(str(error).split()))
        return {"macs_g": None, "macs_g_sampled": None}
    return {"macs_g": macs[own_steps] / 1e9, "macs_g_sampled": macs[sampling_steps] / 1e9}
