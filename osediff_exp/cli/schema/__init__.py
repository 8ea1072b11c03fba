"""The schema: what every key of the option files takes. It is read before anything heavy is imported.

A key that no option file of ours has (a user's own loss term, say) takes what its default's type says.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import cache

from osediff_exp.cli.schema import methods, photos, tasks, training
from osediff_exp.cli.schema.rules import Rule, flag, text, word

OPEN_DICTS = (
    "report.labels",
    "report.published",
    "logger.tags",
    "logger.*.tags",
    "hydra.job.env_set",
    "hydra.sweeper.params",
    "hydra.launcher.additional_parameters",
)
"""Keys (patterns) of dictionaries whose entries are the user's own names: any key is accepted below them."""

EXPERIMENT_GROUP = "experiment"
"""The group whose files only vary what the other files declare: they may not introduce keys."""

SECOND_PLACES = {"val_degradation": "degradation"}
"""Keys that take an option of a group of another name."""

NEEDED_GROUPS = frozenset({"backbone", "data", "degradation", "generator", "method", "optimizer", "prompt", "restorer", "trainer"})
"""Groups that are always chosen from: none of them may be left out."""

SINGLE_GROUPS = frozenset({"backbone", "degradation", "generator", "method", "optimizer", "prompt"})
"""Groups whose options each make one part: two of them in a list would be merged into one that nobody wrote."""

LAUNCHER_PACKAGES = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
"""Hydra launchers that come with a package of their own."""

TARGETS = ("osediff_exp", "torch.optim", "pytorch_lightning.callbacks")
"""What ``_target_`` and ``task.function`` may name without being asked: this package, optimizers, Lightning's callbacks."""

HYDRA_TARGETS = (*TARGETS, "hydra._internal.core_plugins", "hydra_plugins")
"""The same below ``hydra``, whose launchers and sweepers are built in the same way."""

RULES: dict[str, Rule] = {
    "**._target_": text(empty=False),
    "_target_": text(empty=False),
    "**._partial_": flag(),
    "**._convert_": word("none", "partial", "object", "all"),
    **training.RULES,
    **methods.RULES,
    **photos.RULES,
    **tasks.RULES,
}
"""Every rule by its key or pattern: ``*`` stands for anything in one name, ``**`` for any names; ``task:key`` holds in that task alone."""


@cache
def is_open(key: str) -> bool:
    """Tell whether ``key`` is, or lies below, an open dictionary."""
    parts = key.split(".")
    prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatchcase(prefix, pattern) for prefix in prefixes for pattern in OPEN_DICTS)


def rule_for(key: str, task: str = "") -> Rule | None:
    """Return the rule of a full key, or None where the schema has none."""
    return _rule(f"{task}:{key}") or _rule(key)


@cache
def _rule(key: str) -> Rule | None:
    return next((rule for pattern, rule in _compiled() if pattern.fullmatch(key)), None)


@cache
def _compiled() -> list[tuple[re.Pattern[str], Rule]]:
    return [(re.compile(_expression(pattern)), rule) for pattern, rule in RULES.items()]


def _expression(pattern: str) -> str:
    escaped = re.escape(pattern).replace(r"\:", ":").replace(r"\*\*", ".*").replace(r"\*", "[^.]*")
    return escaped.replace(r"\?", "[^.]")
