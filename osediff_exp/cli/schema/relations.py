"""Keys that must fit one another: sizes and their units, ends of ranges, probabilities that sum to 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from osediff_exp.cli.resolvers import steps_within
from osediff_exp.cli.schema.rules import fits, kind_of
from osediff_exp.errors import nearest

Values = Mapping[str, Any]
"""A configuration's values by their full keys, groups included, with references followed."""

_ENDS = (("t_min", "t_max"), ("score_t_min", "score_t_max"), ("gan_t_min", "gan_t_max"), ("distill_t_min", "distill_t_max"))


def relation_problem(values: Values) -> str | None:
    """Return the first misfit of two keys, or None. Each value by itself has been checked."""
    return next((problem for check in _CHECKS for problem in check(values)), None)


def _sides(values: Values) -> Iterator[str]:
    """Crops are multiples of the VAE's factor and of the degradation's scale; photos are not reduced below them."""
    smallest, validation = values.get("data.reduce_to"), "val_degradation" if values.get("val_degradation") else "degradation"
    for key, degradation in (("data.crop_size", "degradation"), ("data.val_size", validation)):
        side, scale = values.get(key), values.get(f"{degradation}.scale")
        if not isinstance(side, int):
            continue
        if side % (unit := math.lcm(8, scale) if isinstance(scale, int) else 8):
            closest = max(unit, round(side / unit) * unit)
            yield f"{key}={side} must be a multiple of {unit} (of 8 and {degradation}.scale={scale}); the nearest is {closest}"
        if isinstance(smallest, int) and smallest < side:
            yield f"data.reduce_to={smallest} would make photos smaller than {key}={side}: the nearest is {side}"


def _encoded(values: Values) -> Iterator[str]:
    """What a prior's stream cuts its crops from is as large as they are, no larger than the photos, and can be degraded."""
    if values.get("stage") != "prior" or not values.get("pretrain.latents.count"):
        return
    key = "pretrain.latents.crop_size"
    side, crop, scale, smallest = (values.get(name) for name in (key, "data.crop_size", "degradation.scale", "data.reduce_to"))
    if not isinstance(side, int):
        return
    if isinstance(crop, int) and side < crop:
        yield f"{key}={side} is smaller than data.crop_size={crop}, whose crops are cut from it: the nearest is {crop}"
    if isinstance(scale, int) and side % (unit := math.lcm(8, scale)):
        closest = max(unit, round(side / unit) * unit)
        yield f"{key}={side} must be a multiple of {unit} (of 8 and degradation.scale={scale}); the nearest is {closest}"
    if isinstance(smallest, int) and smallest < side:
        yield f"data.reduce_to={smallest} would make photos smaller than {key}={side}: the nearest is {side}"


def _ends(values: Values) -> Iterator[str]:
    for key, low in values.items():
        prefix, _, name = key.rpartition(".")
        for first, last in _ENDS:
            high = values.get(f"{prefix}.{last}")
            if name == first and _is_number(low) and _is_number(high) and low >= high:
                yield f"{key}={low} must be below {prefix}.{last}={high}"


def _overlaps(values: Values) -> Iterator[str]:
    for network in ("encoder", "decoder", "unet"):
        tile, overlap = (values.get(f"restorer.tiling.{network}_{part}") for part in ("tile", "overlap"))
        if isinstance(tile, int) and isinstance(overlap, int) and 2 * overlap > tile:
            yield f"restorer.tiling.{network}_overlap={overlap} does not fit tiles of {tile}: the nearest is {tile // 2}"


def _second_places(values: Values) -> Iterator[str]:
    """A second place holds an option's keys whole: some alone make nothing."""
    from osediff_exp.cli.schema import SECOND_PLACES  # which is made of the rules, not of their relations

    for name, group in SECOND_PLACES.items():
        if values.get(name) is not None and not values.get(f"{name}._target_"):
            yield f"{name} has no option: choose one of {group} with {name}=NAME, and change its values then"


def _sums(values: Values) -> Iterator[str]:
    for key, value in values.items():
        is_table = key.endswith((".families", ".directions", ".shares")) and isinstance(value, dict)
        if is_table and key.startswith(("degradation.", "val_degradation.")):
            shares = [share for share in value.values() if _is_number(share)]
            if len(shares) == len(value) and abs(sum(shares) - 1) > 1e-6:
                yield f"the probabilities of {key} sum to {sum(shares):g}: make them sum to 1"


def _terms(values: Values) -> Iterator[str]:
    terms = {name: term for name, term in (values.get("loss.terms") or {}).items() if term is not None}
    if values.get("task.name") != "train" or "trainer.max_steps" not in values or "generator._target_" not in values:
        return
    if not terms and values.get("method.name") not in (None, "osediff"):
        return  # a method with a loss of its own takes none
    if all(values.get(f"loss.terms.{name}.weight") == 0 for name in terms):
        yield "no loss term is left: give at least one term in loss/terms a weight above 0"
    rounds = values.get("trainer.critic_updates")
    if isinstance(rounds, int) and rounds > 1 and not any(isinstance(term, dict) and "optimizer" in term for term in terms.values()):
        yield f"trainer.critic_updates={rounds}, but no loss term has a network to update: add one (vsd), or set it to 1"


def _budgets(values: Values) -> Iterator[str]:
    """Where a budget is set, the steps are the budget's: two answers to one question would hide one of them."""
    budget, steps = values.get("trainer.budget_samples"), values.get("trainer.max_steps")
    if not isinstance(budget, int) or not isinstance(steps, int):
        return
    allowed = steps_within(budget, {key.removeprefix("trainer."): value for key, value in values.items() if key.startswith("trainer.")})
    if steps != allowed:
        yield f"trainer.max_steps={steps}, but trainer.budget_samples={budget} allows {allowed}: leave one of them out"


def _countless_crops(values: Values) -> Iterator[str]:
    """A training of so many minutes takes nobody knows how many steps: its crops cannot be tagged before it."""
    from osediff_exp.bars import UNBOUNDED_STEPS  # and with it a terminal's bars, which no other check needs

    unbounded = values.get("trainer.max_steps") == UNBOUNDED_STEPS and values.get("tag.samples") is None
    if unbounded and values.get("task.name") == "tag" and values.get("input") is None and values.get("prompt.train_image") != "photo":
        minutes = values.get("trainer.budget_minutes")
        yield f"trainer.budget_minutes={minutes} does not say how many crops to tag: set tag.samples to a number, or trainer.max_steps"


def _recomputed(values: Values) -> Iterator[str]:
    """Only the one-step generator's parts can be recomputed one by one."""
    parts, method = values.get("generator.gradient_checkpointing"), values.get("method.name")
    if isinstance(parts, list) and str(values.get("generator._target_")).startswith("osediff_exp.methods."):
        yield f"generator.gradient_checkpointing={parts}: method={method} recomputes all or nothing; give true or false"


def _halved(values: Values) -> Iterator[str]:
    """In half precision alone the terms' float32 pictures do not fit the networks."""
    precision = str(values.get("trainer.precision"))
    if precision in ("bf16-true", "16-true"):
        mixed = precision.replace("true", "mixed")
        yield f"trainer.precision={precision} is not for a training, whose weights and pictures stay in float32; use {mixed}"


OWN_OPTIONS = ("average", "color_fix", "decoder", "dtype", "guidance", "min_side", "negative_prompt", "seed", "steps")
"""What an entry of ``restorers`` may set for itself, of the keys of ``restorer``."""


def _restorers(values: Values) -> Iterator[str]:
    """An entry that is a group of keys names its checkpoint, and options that a restorer has."""
    from osediff_exp.cli.schema import rule_for  # which is made of the rules, not of their relations

    given = values.get("restorers")
    groups = given if isinstance(given, list) else [given]
    for label, entry in (pair for group in groups if isinstance(group, dict) for pair in group.items()):
        if not isinstance(entry, dict):
            continue
        if not isinstance(entry.get("checkpoint"), str):
            yield f"restorers.{label} is a group of keys without a checkpoint: write {{checkpoint: PATH, steps: 10}}, or the path alone"
        for name, value in entry.items():
            if name == "checkpoint":
                continue
            rule, key = rule_for(f"restorer.{name}"), f"restorers.{label}.{name}"
            if name not in OWN_OPTIONS or rule is None:
                yield f"{key} is no option of one restorer: use {', '.join(OWN_OPTIONS)}.{nearest(str(name), OWN_OPTIONS)}"
            elif value is None and not rule.null:
                yield f"{key}=null has no value: leave it out"
            elif value is not None and not fits(value, rule.types):
                yield f"{key}={value} is not {kind_of(rule.types)}"
            elif value is not None and (problem := rule.problem(key, value)):
                yield problem


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_CHECKS: tuple[Callable[[Values], Iterator[str]], ...] = (
    _sides,
    _second_places,
    _encoded,
    _ends,
    _overlaps,
    _sums,
    _terms,
    _budgets,
    _countless_crops,
    _recomputed,
    _halved,
    _restorers,
)
