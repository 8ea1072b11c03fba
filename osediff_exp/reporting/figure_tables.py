"""The tables of what is no quality: costs, environment, other figures; every table is heading -> texts, one per arm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from osediff_exp.reporting.figures import as_number, show_figure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from osediff_exp.reporting.comparison import Comparison

# What the run was made with, in this order, with headings.
_ENVIRONMENT = {
    "task": "Task",
    "method": "Method",
    "machine": "Machine",
    "device": "Device",
    "os": "System",
    "python": "Python",
    "torch": "PyTorch",
    "version": "osediff_exp",
    "commit": "Commit",
    "backbone_fingerprint": "Backbone fingerprint",
    "init": "Weights at the start",
}
# The costs people ask for, in this order, with their headings; other numbers stand under "other figures".
_COSTS = {
    "train_seconds": "Training",
    "samples_seen": "Samples seen",
    "restore_seconds_per_image": "Seconds per image",
    "restore_seconds": "Seconds per image",
    "prompt_seconds_per_image": "... of these for the tags (first time)",
    "sampling_steps": "Sampling steps",
    "own_sampling_steps": "... of the method by itself",
    "guidance": "Guidance",
    "macs_g_sampled": "GMACs at 512 px in these steps",
    "macs_g": "... in the method's own",
    "seconds": "Whole run",
    "peak_memory_gib": "Peak memory (GiB)",
    "params_total": "Parameters",
    "params_trainable": "Trainable parameters",
    "trainable_parameters": "Trainable parameters",
    "params_trainable_generator": "... of the generator",
    "train_images_per_second": "Images/s (training)",
    "images_per_second": "Images/s",
}
_BEFORE = "train_seconds_before"
_SHORT_COMMIT = 10


def cost_table(comparison: Comparison) -> dict[str, list[tuple[str, str]]]:
    """Return heading -> (text, sort key) per arm for time, memory, parameters and speed, means over seeds."""
    table: dict[str, list[tuple[str, str]]] = {}
    for key, title in _COSTS.items():
        values = [_whole_run(row.figures) if key == "seconds" else row.figures.get(key) for row in comparison.arms]
        if title not in table and any(value is not None for value in values):
            table[title] = [(_cost(key, value), repr(number) if (number := as_number(value)) is not None else "") for value in values]
    return table


def environment_table(comparison: Comparison) -> dict[str, list[str]]:
    """Return heading -> text per arm for what the runs were made with: the known names, then every other text."""
    shown = {metric.key for metric in comparison.metrics} | _COSTS.keys()
    present = list(dict.fromkeys(key for row in comparison.arms for key in row.figures if key not in shown))
    texts = [key for key in present if all(as_number(row.figures.get(key)) is None for row in comparison.arms)]
    keys = [key for key in _ENVIRONMENT if key in present] + [key for key in texts if key not in _ENVIRONMENT]
    return {_ENVIRONMENT.get(key, key): [_environment(key, row.figures.get(key)) for row in comparison.arms] for key in keys}


def other_figures(comparison: Comparison) -> dict[str, list[str]]:
    """Return figure -> text per arm for the numbers that are neither metrics nor costs."""
    shown = {metric.key for metric in comparison.metrics} | _COSTS.keys() | _ENVIRONMENT.keys() | {_BEFORE}
    table = {}
    for key in dict.fromkeys(key for row in comparison.arms for key in row.figures if key not in shown):
        values = [row.figures.get(key) for row in comparison.arms]
        if any(as_number(value) is not None for value in values):
            table[key] = [show_figure(key, value) for value in values]
    return table


def _whole_run(figures: Mapping[str, Any]) -> Any:
    """Return the seconds of the last call with those that earlier ones trained, where the run went on from a checkpoint."""
    seconds, before = as_number(figures.get("seconds")), as_number(figures.get(_BEFORE))
    return figures.get("seconds") if seconds is None else seconds + (before or 0.0)


def _cost(key: str, value: Any) -> str:
    return f"{number:.2f}" if key == "peak_memory_gib" and (number := as_number(value)) is not None else show_figure(key, value)


def _environment(key: str, value: Any) -> str:
    """Write a text of the environment; a commit as git shortens it, with "+" for changes that were not committed."""
    if key == "init" and not value:
        return "the backbone's"
    if key != "commit" or not value:
        return show_figure(key, value)
    return ", ".join(text[:_SHORT_COMMIT] + ("+" if "dirty" in text else "") for text in str(value).split(", "))
