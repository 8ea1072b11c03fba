"""What the checks cannot read off the configuration files: open dictionaries, and what may stand where a default is null."""

from __future__ import annotations

from fnmatch import fnmatchcase

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

NULLABLE: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "resume": (str,),
    "init": (str,),
    "trainer.ema_decay": (float,),
    "runs": (str, list),
    "restorers": (str, list, dict),
    "checkpoint": (str,),
    "output": (str,),
    "restorer.min_side": (int,),
    "restorer.dtype": (str,),
    "restorer.sources": (list,),
    "restorer.steps": (int,),
    "restorer.guidance": (float,),
    "restorer.negative_prompt": (str,),
    "method.stage": (str,),
    "method.needs.*": (str,),
    "method.made_by.*.stage": (str,),
    "pred": (str,),
    "gt": (str,),
    "data.first": (int,),
    "input": (str,),
    "prompt.cache": (str,),
    "prompt.lora": (str,),
    "prompt.thresholds": (str,),
    "prompt.threshold": (float,),
    "prompt.max_tags": (int,),
    "prompt.instruction": (str,),
    "tag.samples": (int,),
    "sources": (list,),
    "report.title": (str,),
    "report.baseline": (str,),
    "report.question": (str,),
}
"""Keys (patterns) that may be null, and the types they take otherwise; a null default that is not listed takes anything."""

EXPERIMENT_GROUP = "experiment"
"""The group whose files only vary what the other files declare: they may not introduce keys."""

LAUNCHER_PACKAGES = {
    "joblib": "hydra-joblib-launcher",
    "submitit_local": "hydra-submitit-launcher",
    "submitit_slurm": "hydra-submitit-launcher",
}
"""Hydra launchers that come with a package of their own."""


def is_open(key: str) -> bool:
    """Tell whether ``key`` is, or lies below, an open dictionary."""
    parts = key.split(".")
    prefixes = [".".join(parts[: i + 1]) for i in range(len(parts))]
    return any(fnmatchcase(prefix, pattern) for prefix in prefixes for pattern in OPEN_DICTS)


def nullable_types(key: str) -> tuple[type, ...] | None:
    """Return the types declared for a key that may be null, or None where nothing is declared."""
    return next((types for pattern, types in NULLABLE.items() if fnmatchcase(key, pattern)), None)
