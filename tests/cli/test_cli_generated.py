"""Configurations that nobody would write, generated: each is a plan or one line, fast, and nothing of the user's is touched."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from cli_paths import CONF
from generated_commands import always_the_same, commands
from hypothesis import assume, given

from osediff_exp.cli.arguments import parse_arguments
from osediff_exp.cli.command import run_command
from osediff_exp.cli.conf_tree import conf_dir
from osediff_exp.cli.preflight import make_plan
from osediff_exp.errors import UserError


def plan_or_line(arguments: list[str]) -> tuple[str, float]:
    """Make the plan; return "plan" or the line, and the seconds of processor time that it took."""
    started = time.process_time()
    try:
        make_plan(conf_dir(), parse_arguments(arguments))
        line = "plan"
    except UserError as error:
        line = str(error)
    return line, time.process_time() - started


def check_plan(arguments: list[str], workplace: Path) -> str:
    """Check what becomes of a command; return "plan" or the line."""
    precious = workplace / "precious.txt"
    precious.write_text("mine")
    line, seconds = plan_or_line(arguments)
    limit = 5 if "-m" not in arguments else 10  # 2 s on an idle machine
    if seconds >= limit:
        line, seconds = plan_or_line(arguments)  # on a busy one a single case may take four times as much
    assert seconds < limit
    assert line
    assert "\n" not in line
    assert "Traceback" not in line
    assert precious.read_text() == "mine"
    assert list(workplace.iterdir()) == [precious]
    return line


def test_a_name_longer_than_a_files_is_one_line(workplace: Path) -> None:
    assert check_plan([f"backbone={'x' * 5000}"], workplace) == "a name on the command line is longer than a file's may be: shorten it"


def test_a_task_s_name_that_cannot_be_resolved_is_one_line(workplace: Path) -> None:
    expected = "task.name refers to what cannot be resolved here: choose the task with task=NAME"
    assert check_plan(["task.name=${hydra:run.dir}"], workplace) == expected


def check_plans(cases: int, workplace: Path) -> list[str]:
    """Check as many generated commands; hypothesis shrinks one that breaks a promise to the shortest that does."""
    lines: list[str] = []

    @always_the_same(cases)
    @given(commands(conf_dir()))
    def each_is_a_plan_or_one_line(arguments: list[str]) -> None:
        lines.append(check_plan(arguments, workplace))

    each_is_a_plan_or_one_line()
    return lines


def test_a_few_generated_configurations_are_a_plan_or_one_line(workplace: Path) -> None:
    assert sum(line != "plan" for line in check_plans(6, workplace)) > 0


@pytest.mark.slow
def test_a_thousand_generated_configurations_are_a_plan_or_one_line(workplace: Path) -> None:
    lines = check_plans(1000, workplace)
    assert len(lines) == 1000
    assert 600 < sum(line != "plan" for line in lines) < 1000


@pytest.mark.slow
def test_two_hundred_generated_commands_end_in_a_run_or_one_line(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The whole way through Hydra, over the tests' small tree, whose runs take no time."""

    @always_the_same(200)
    @given(commands(CONF, listed=True))
    def each_ends_in_a_run_or_one_line(arguments: list[str]) -> None:
        assume(not any(".dir=" in text and text.endswith(("=/", "=../..", "=~")) for text in arguments))  # not in the tester's folders
        for path in workplace.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        (workplace / "precious.txt").write_text("mine")
        capfd.readouterr()
        status = run_command(["--config-path", str(CONF), *arguments])
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err
        assert not list(workplace.rglob("error.log"))
        assert (status == 0) == ("error" not in printed.err), printed.err
        assert (workplace / "precious.txt").read_text() == "mine"

    each_ends_in_a_run_or_one_line()
