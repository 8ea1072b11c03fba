"""The checks of one composed configuration: unknown keys, wrong types, wrong targets, missing values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, InterpolationResolutionError, InterpolationToMissingValueError, OmegaConfBaseException

from osediff_exp.cli.keys import all_keys, did_you_mean, dotted, exists, plain, value_at
from osediff_exp.cli.messages import no_such_option
from osediff_exp.cli.schema import EXPERIMENT_GROUP, HYDRA_TARGETS, NEEDED_GROUPS, SECOND_PLACES, SINGLE_GROUPS, TARGETS, is_open
from osediff_exp.cli.schema.relations import relation_problem
from osediff_exp.cli.targets import foreign_problem, target_paths, target_problem
from osediff_exp.cli.types import MISSING, value_problem
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hydra.core.override_parser.types import Override

    from osediff_exp.cli.compose import Composer


def check_keys(composer: Composer, overrides: list[str]) -> None:
    """Raise UserError for an override whose key or option does not exist."""
    parsed = composer.parse(overrides)
    for override in parsed:
        _check_option(composer, override)
    defaults = composer.declared(overrides)
    for override in parsed:
        if not composer.is_group(override.key_or_group):
            _check_key(composer, override, defaults)


def check(composer: Composer, overrides: list[str]) -> DictConfig:
    """Compose ``overrides`` (no sweeps among them), raise UserError for the first mistake, and return the whole configuration."""
    check_keys(composer, overrides)
    config = composer.whole(overrides)
    if not OmegaConf.is_dict(config.get("task")) or "name" not in config.task:
        raise UserError("task has no name: choose one with task=NAME, as --help lists them")
    own = plain(config)
    hydra = own.pop("hydra")
    _check_tree(composer, config, own, overrides)
    _check_targets(config, own, hydra)
    _check_missing(own)
    _check_logging(config)
    return config


class _Origin:
    """Says that a mistake stands in an experiment's file: nothing typed touches the key."""

    def __init__(self, typed: list[Override]) -> None:
        named = [override.value() for override in typed if override.key_or_group == EXPERIMENT_GROUP]
        self._files = [f"{EXPERIMENT_GROUP}/{name}.yaml" for value in named for name in (value if isinstance(value, list) else [value])]
        self._keys = [dotted(override.key_or_group) for override in typed]

    def __call__(self, key: str) -> str:
        typed = any(key == other or key.startswith(f"{other}.") or other.startswith(f"{key}.") for other in self._keys)
        return f" (in {' or '.join(self._files)})" if self._files and not typed else ""


def _check_option(composer: Composer, override: Override) -> None:
    key, value = override.key_or_group, override.value()
    if not key:
        raise UserError(f"'{override.input_line}' has no key: write key=value")
    if composer.is_group(key) and not override.is_delete() and not isinstance(value, str | list | dict):
        raise UserError(no_such_option(key, str(value), composer.options(key)))
    if key in NEEDED_GROUPS and override.package not in SECOND_PLACES and (override.is_delete() or value == []):
        raise UserError(
            f"{override.input_line} leaves {key} out, which no run can do without: choose one of {', '.join(composer.options(key))}"
        )
    if key in SINGLE_GROUPS and isinstance(value, list) and len(value) > 1:
        names = [str(item) for item in value]
        several = " (degradation=mixed takes several, see degradation.parts)" if key == "degradation" else ""
        raise UserError(f"{override.input_line}: {key} is one option{several}; a sweep over them is -m {key}={','.join(names)}")
    if composer.is_group(key) and isinstance(value, list) and (odd := [item for item in value if not isinstance(item, str)]):
        raise UserError(no_such_option(key, str(odd[0]), composer.options(key)))


def _check_key(composer: Composer, override: Override, reference: dict[str, Any]) -> None:
    key = dotted(override.key_or_group)
    known = exists(reference, key)
    if not known and not is_open(key) and not _below_null(reference, key):
        raise UserError(_unknown(composer, key, reference))
    adds = not known or (is_open(key) and isinstance(override.value(), dict))
    if adds and not override.is_add() and not override.is_force_add():
        raise UserError(f"{override.input_line} adds an entry: write it with two plus signs, ++{override.input_line}")


def _unknown(composer: Composer, key: str, reference: dict[str, Any], origin: str = "") -> str:
    mine = {name: value for name, value in reference.items() if name != "hydra" or key.startswith("hydra")}
    candidates = [name for name in [*all_keys(mine), *composer.groups()] if not key.startswith(f"{name}.")]
    return f"unknown key '{key}'{origin}.{did_you_mean(key, candidates)} --cfg job prints all keys"


def _check_tree(composer: Composer, config: DictConfig, own: dict[str, Any], overrides: list[str]) -> None:
    """Check every key of ``own``, the plain content of ``config``."""
    origin, reference, defaults = _Origin(composer.parse(overrides)), composer.reference(overrides), composer.declared(overrides)
    task, values = _task_name(config), {}
    for key, value in _leaves(own):
        if not exists(defaults, key) and not _below_null(defaults, key):
            raise UserError(_unknown(composer, key, defaults, origin(key)))
        values[key] = found = resolved(config, key, value)
        default = resolved(reference, key, value_at(defaults, key))
        problem = value_problem(key, found, default, task, ruled=_is_ours(own, key))
        if problem:
            raise UserError(f"{problem}{origin(key)}")
    if problem := relation_problem(values):
        raise UserError(problem)


def _task_name(config: DictConfig) -> str:
    try:
        return str(OmegaConf.select(config, "task.name", default=""))
    except OmegaConfBaseException as error:
        raise UserError("task.name refers to what cannot be resolved here: choose the task with task=NAME") from error


def _is_ours(tree: Any, key: str) -> bool:
    """Tell whether a key is one that the schema knows: a component of the user's own may give its name another meaning."""
    target = ""
    for part in key.split("."):
        if not isinstance(tree, dict):
            break
        target = str(tree.get("_target_", target))
        tree = tree.get(part)
    return target.startswith(("${", *TARGETS)) or not target


def _leaves(tree: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (full key, value) of everything outside open dictionaries; a branch comes before what it holds."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if is_open(key):
            continue
        yield key, value
        if isinstance(value, dict):
            yield from _leaves(value, f"{key}.")


def _below_null(defaults: dict[str, Any], key: str) -> bool:
    """Tell whether a default above ``key`` is null or mandatory: what is put there may have any shape."""
    node: Any = defaults
    for part in key.split("."):
        if node is None or node == MISSING:
            return True
        node = node.get(part, "") if isinstance(node, dict) else ""
    return False


def resolved(config: DictConfig, key: str, raw: Any) -> Any:
    """Return a key's value with references followed; one that only a running job can follow counts as missing (no type yet)."""
    if not isinstance(raw, str) or "${" not in raw:
        return raw
    try:
        value = OmegaConf.select(config, key)
    except InterpolationKeyError as error:
        raise UserError(f"{key}={raw}: {str(error).splitlines()[0]}.{_nearest_reference(config, str(raw))}") from None
    except InterpolationToMissingValueError:
        return MISSING
    except InterpolationResolutionError as error:
        if "HydraConfig" in str(error):  # ${hydra:...}: a running job's
            return MISSING
        raise UserError(f"{key}={raw}: {str(error).splitlines()[0]}") from None
    except OmegaConfBaseException:
        return MISSING
    return OmegaConf.to_container(value, resolve=False) if OmegaConf.is_config(value) else value


def _nearest_reference(config: DictConfig, raw: str) -> str:
    return did_you_mean(raw.strip("${}"), (key for key in all_keys(plain(config)) if not key.startswith("hydra")))


def _check_logging(config: DictConfig) -> None:
    for name in ("job_logging", "hydra_logging"):
        settings = OmegaConf.select(config, f"hydra.{name}")
        if settings is not None and (not OmegaConf.is_dict(settings) or settings.get("version") != 1):
            raise UserError(f"hydra.{name}.version must be 1, as Python's logging requires: leave it as it is")


def _check_targets(config: DictConfig, own: dict[str, Any], hydra: dict[str, Any]) -> None:
    packages = tuple(str(name) for name in own.get("packages") or ())
    found = [(key, path, (*TARGETS, *packages)) for key, path in target_paths(own)]
    found += [("task.function", str(own.get("task", {}).get("function", "")), (*TARGETS, *packages))]
    for part in ("callbacks", "launcher", "sweeper"):
        found += [(key, path, (*HYDRA_TARGETS, *packages)) for key, path in target_paths(hydra.get(part) or {}, f"hydra.{part}.")]
    for key, raw, allowed in found:
        path = str(resolved(config, key, raw)) if "${" in raw else raw
        if problem := target_problem(path) or foreign_problem(path, allowed):
            raise UserError(f"{key} is {problem}")


def _check_missing(own: dict[str, Any]) -> None:
    missing = sorted(key for key, value in _leaves(own) if value == MISSING)
    if missing:
        raise UserError(f"task={own['task']['name']} needs {' and '.join(missing)}: add {' '.join(f'{key}=VALUE' for key in missing)}")
