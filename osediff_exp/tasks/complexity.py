"""task=complexity: parameters and multiply-accumulates of the configured generator, beside the published table, without weights."""

from __future__ import annotations

from pathlib import Path

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig
from rich.console import Console

from osediff_exp.losses.base import CriticTerm
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.complexity import Macs, Parameters, count_parameters, measure_macs, measure_parameters
from osediff_exp.models.empty_backbone import empty_backbone
from osediff_exp.reporting.complexity_table import ComplexityReport, PublishedMethod
from osediff_exp.reporting.files import write_atomically
from osediff_exp.runtime import prepare_process, quiet_libraries
from osediff_exp.tasks.methods import term_nodes

Figures = dict[str, float | int | str | None]
PUBLISHED = ("sd21", 512)  # the paper's backbone, and the size of its table


def run(config: DictConfig, run_dir: Path) -> Figures:
    """Count, print, write ``complexity.md`` and return the flat figures: parameters as they are, MACs in 10^9."""
    quiet_libraries()
    prepare_process(seed=config.seed)
    backbone = empty_backbone(config.backbone.architecture)
    with torch.device("meta"):
        generator = instantiate(config.generator)(backbone=backbone)
        score = count_parameters(parameter for term in build_critics(config, backbone) for parameter in term.critic_parameters())
        parameters = measure_parameters(backbone, generator)
        macs = measure_macs(backbone, generator, size=config.complexity.size)
    figures = parameter_figures(parameters, score) | mac_figures(macs)
    figures |= {"size": config.complexity.size, "backbone": config.backbone.architecture}
    figures |= {"method": config.method.name, "sampling_steps": generator.steps, "guidance": generator.guidance}
    published = config.method.get("published")
    comparable = published is not None and (config.backbone.architecture, config.complexity.size) == PUBLISHED
    report = ComplexityReport(figures, published=PublishedMethod(**published) if comparable else None)
    report.print(Console())
    write_atomically(run_dir / "complexity.md", report.markdown())
    return figures


def build_critics(config: DictConfig, backbone: Backbone) -> list[CriticTerm]:
    """Return the loss terms of weight above 0 that train networks of their own, attached; the others may need weights and are not built."""
    critics = [instantiate(node) for node in term_nodes(config).values() if issubclass(get_class(node["_target_"]), CriticTerm)]
    for term in critics:
        term.attach(backbone)
    return critics


def parameter_figures(parameters: Parameters, score: int) -> Figures:
    """Return ``params_total`` (what restoring uses), ``params_trainable`` (generator and score network) and the parts."""
    return {
        "params_total": parameters.total,
        "params_trainable": parameters.trainable + score,
        "params_generator_trainable": parameters.trainable,
        "params_score_trainable": score,
        **{f"params_{part}": count for part, count in parameters.parts.items()},
        **{f"params_lora_{part}": count for part, count in parameters.lora.items()},
        "params_trainable_base": parameters.trainable - sum(parameters.lora.values()),
    }


def mac_figures(macs: Macs) -> Figures:
    """Return ``macs_g`` (LoRA not merged, as in training), ``macs_g_merged``, its parts, ``macs_g_lora``, what LoRA adds, and
    ``macs_g_products``, those of the merged that are attention's products."""
    whole, merged = sum(macs.unmerged.values()), sum(macs.merged.values())
    return {
        "macs_g": whole / 1e9,
        "macs_g_merged": merged / 1e9,
        **{f"macs_g_{part}": count / 1e9 for part, count in macs.merged.items()},
        "macs_g_lora": (whole - merged) / 1e9,
        "macs_g_products": macs.products / 1e9,
    }
