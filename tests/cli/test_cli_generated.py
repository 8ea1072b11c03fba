"""Configurations that nobody would write, generated: each is a plan or one line, fast, and nothing of the user's is touched."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest
from cli_paths import CONF
from omegaconf import OmegaConf

from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.command import run_command
from osediff_exp.cli.compose import open_composer
from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.keys import all_keys
from osediff_exp.cli.preflight import make_plan
from osediff_exp.errors import UserError

VALUES = (
    *("nan", "inf", "-inf", "-1", "0", "1", "2.5", "1e999", "10000000000000000000000", "1e-320", "true", "null", "", "''", "' '"),
    *("[]", "[1", "[nan]", "[1,two,null]", "{}", "{a: 1}", "{a: {b: [1]}}", "${lambda1}", "${nope}", "${oc.env:NOPE_NOPE}", "${times:1}"),
    *(
        "???",
        "'???'",
        "a b",
        "../..",
        "/",
        "~",
        "'a=b'",
        "ü",
        "'x\ny'",
        "'${'",
        "${seed",
        "os.system",
        "auto",
        "sample",
        "1,2",
        "range(0,3)",
    ),
    *("${now:%Y}", "${hydra:run.dir}", "glob(*)", "'\0'", "x" * 5000),
)
HYDRA = (
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.mode", "hydra.job.name", "hydra.job.chdir", "hydra.verbose"),
    *("hydra.output_subdir", "hydra.job.env_set", "hydra.searchpath", "hydra.launcher._target_", "hydra.sweeper.max_batch_size"),
    *("hydra.callbacks.report._target_", "hydra.job_logging.version", "hydra.hydra_logging", "hydra.sweeper.params"),
)
GROUPS = (
    "backbone",
    "trainer",
    "data",
    "prompt",
    "task",
    "loss/terms",
    "degradation",
    "experiment",
    "hydra/launcher",
    "generator",
    "metrics",
)
MARKS = ("", "", "", "", "+", "++", "~")


def generated(number: int, keys: list[str]) -> list[str]:
    """Return the arguments of a command: a function of its number."""
    draw = random.Random(number)
    arguments = ["-m"] if draw.random() < 0.15 else []
    for _ in range(draw.randint(1, 4)):
        kind, value, mark = draw.random(), draw.choice(VALUES), draw.choice(MARKS)
        key = draw.choice(keys) if kind < 0.6 else draw.choice(HYDRA) if kind < 0.8 else draw.choice(GROUPS)
        if draw.random() < 0.1:
            key = draw.choice((key[:-1], f"{key}.x", f"{key}[0]", key.replace(".", "/"), key.upper(), f"{key}@a"))
        arguments.append(mark + key if mark == "~" and draw.random() < 0.5 else f"{mark}{key}={value}")
    return arguments


def keys_of(conf: Path) -> list[str]:
    with open_composer(conf, []) as composer:
        tree: Any = OmegaConf.to_container(composer.whole([]), resolve=False)
    return list(all_keys({name: value for name, value in tree.items() if name != "hydra"}))


def check_plan(arguments: list[str], workplace: Path) -> str:
    """Make the plan; return "plan" or the line."""
    precious = workplace / "precious.txt"
    precious.write_text("mine")
    started = time.process_time()
    try:
        make_plan(conf_dir(), parse_arguments(arguments))
        line = "plan"
    except UserError as error:
        line = str(error)
    assert time.process_time() - started < (5 if "-m" not in arguments else 10), arguments  # 2 s on an idle machine
    assert line, arguments
    assert "\n" not in line, arguments
    assert "Traceback" not in line, arguments
    assert precious.read_text() == "mine"
    assert list(workplace.iterdir()) == [precious]
    return line


@pytest.fixture(scope="module")
def real_keys() -> list[str]:
    return keys_of(conf_dir())


def test_a_dozen_generated_configurations_are_a_plan_or_one_line(workplace: Path, real_keys: list[str]) -> None:
    lines = [check_plan(generated(number, real_keys), workplace) for number in range(12)]
    assert sum(line != "plan" for line in lines) > 0


@pytest.mark.slow
def test_a_thousand_generated_configurations_are_a_plan_or_one_line(workplace: Path, real_keys: list[str]) -> None:
    lines = [check_plan(generated(number, real_keys), workplace) for number in range(1000)]
    assert 600 < sum(line != "plan" for line in lines) < 1000


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 200, 50))
def test_generated_commands_end_in_a_run_or_one_line(first: int, workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The whole way through Hydra, over the tests' small tree, whose runs take no time."""
    keys = keys_of(CONF)
    precious = workplace / "precious.txt"
    precious.write_text("mine")
    for number in range(first, first + 50):
        arguments = generated(number, keys)
        status = run_command(["--config-path", str(CONF), *arguments])
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err, arguments
        assert not list(workplace.rglob("error.log")), arguments
        assert (status == 0) == ("error" not in printed.err), (arguments, printed.err)
        assert precious.read_text() == "mine"
