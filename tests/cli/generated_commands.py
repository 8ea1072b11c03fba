"""Commands that nobody would write, as hypothesis strategies: keys, types, nesting, interpolations, and overrides of Hydra's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from osediff_exp.cli.compose import open_composer
from osediff_exp.cli.keys import all_keys

Words = st.SearchStrategy[str]

VALUES = (
    *("nan", "inf", "-inf", "-1", "0", "1", "2.5", "1e999", "10000000000000000000000", "1e-320", "true", "null", "", "''", "' '"),
    *("[]", "[1", "[nan]", "[1,two,null]", "{}", "{a: 1}", "{a: {b: [1]}}", "${lambda1}", "${nope}", "${oc.env:NOPE_NOPE}", "${times:1}"),
    *("???", "'???'", "a b", "../..", "/", "~", "'a=b'", "ü", "'x\ny'", "'${'", "${seed", "os.system", "auto", "sample", "1,2"),
    *("range(0,3)", "${now:%Y}", "${hydra:run.dir}", "glob(*)", "'\0'", "x" * 5000),
)
HYDRA = (
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode", "hydra.job.name", "hydra.job.chdir", "hydra.verbose"),
    *("hydra.output_subdir", "hydra.job.env_set", "hydra.searchpath", "hydra.launcher._target_", "hydra.sweeper.max_batch_size"),
    *("hydra.callbacks.report._target_", "hydra.job_logging.version", "hydra.hydra_logging", "hydra.sweeper.params"),
)
GROUPS = (
    *("backbone", "trainer", "data", "prompt", "task", "loss/terms", "degradation", "experiment", "hydra/launcher", "generator", "metrics"),
)
_SIGNS = "ab1_-.,:=+~${}[]()'\"\\ ü\n"
_SPOILT: tuple[Callable[[str], str], ...] = (
    lambda key: key[:-1],
    lambda key: f"{key}.x",
    lambda key: f"{key}[0]",
    lambda key: key.replace(".", "/"),
    str.upper,
    lambda key: f"{key}@a",
)


def always_the_same(cases: int) -> settings:
    """Return the settings of a search that finds the same cases every time, and keeps none of them on the disk."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
    return settings(max_examples=cases, derandomize=True, database=None, deadline=None, suppress_health_check=slow)


@cache
def keys_of(conf: Path) -> tuple[str, ...]:
    """Return every key of a configuration tree."""
    with open_composer(conf, []) as composer:
        tree: Any = OmegaConf.to_container(composer.whole([]), resolve=False)
    return tuple(all_keys({name: value for name, value in tree.items() if name != "hydra"}))


def values(keys: Words) -> Words:
    """Values: the listed ones, numbers of any size, texts of special signs, references to keys, and lists and groups of these."""
    numbers = st.integers().map(str) | st.floats().map(repr)
    leaves = st.sampled_from(VALUES) | numbers | keys.map("${{{}}}".format) | st.text(st.sampled_from(_SIGNS), max_size=8)
    nested = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3).map(_as_list) | inner.map("{{a: {}}}".format), max_leaves=4)
    return st.sampled_from(VALUES) | nested


def _as_list(items: list[str]) -> str:
    return f"[{','.join(items)}]"


@st.composite
def overrides(draw: st.DrawFn, conf: Path, value: Words) -> str:
    """One argument: a key of the tree, of Hydra or a group, one in ten spoilt; with or without a mark and a value."""
    own = st.sampled_from(keys_of(conf))
    key = draw(st.one_of(own, own, own, st.sampled_from(HYDRA), st.sampled_from(GROUPS)))
    if draw(st.integers(0, 9)) == 9:
        key = draw(st.sampled_from(_SPOILT))(key)
    mark = draw(st.sampled_from(("", "", "", "", "+", "++", "~")))
    if mark == "~" and draw(st.booleans()):
        return mark + key
    return f"{mark}{key}={draw(value)}"


def commands(conf: Path, *, listed: bool = False) -> st.SearchStrategy[list[str]]:
    """Return commands over a configuration tree, one in seven a sweep; ``listed``: the listed values alone, no built ones."""
    value = st.sampled_from(VALUES) if listed else st.deferred(lambda: values(st.sampled_from(keys_of(conf))))
    sweep = st.integers(0, 6).map(lambda number: ["-m"] if number == 6 else [])
    one = st.deferred(lambda: overrides(conf, value))
    return st.builds(lambda first, rest: [*first, *rest], sweep, st.lists(one, min_size=1, max_size=4))
