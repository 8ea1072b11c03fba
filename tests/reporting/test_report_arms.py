from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from osediff_exp.reporting.arms import group_seeds, make_arm, references, without_seed
from osediff_exp.reporting.runs import Run


def run(number: int, overrides: str, *, status: Any = "done", config: dict[str, Any] | None = None, **result: Any) -> Run:
    texts = tuple(overrides.split())
    return Run(Path(f"{number}_run"), f"{number}_run", status, texts, config=config or {}, result=result)


def names(runs: list[Run]) -> list[list[str]]:
    return [[one.name[0] for one in group] for group in group_seeds(runs)]


def test_runs_that_differ_only_in_their_seed_are_one_arm() -> None:
    runs = [run(0, "a=1 seed=1"), run(1, "a=1 seed=2"), run(2, "a=2 seed=1"), run(3, "seed=2 a=2")]
    assert names(runs) == [["0", "1"], ["2", "3"]]
    assert without_seed(runs[0]).overrides == ("a=1",)


def test_what_follows_from_the_seed_or_the_folder_does_not_part_them_but_anything_else_does() -> None:
    def settings(seed: int, number: int, **more: Any) -> dict[str, Any]:
        return {"seed": seed, "lambda1": 2, "data": {"seed": seed}, "out": f"x/{number}_run", "resume": number or None, **more}

    same = [run(i, f"seed={seed}", config=settings(seed, i)) for i, seed in enumerate((1, 2))]
    assert names(same) == [["0", "1"]], "lambda1 = 2 is no seed, though one seed is 2"
    edited = [run(i, f"seed={i}", config=settings(i, i, rank=i + 4)) for i in (0, 1)]
    assert names(edited) == [["0"], ["1"]]


def test_the_same_seed_twice_is_no_second_sample() -> None:
    assert names([run(0, "a=1 seed=1"), run(1, "a=1 seed=1"), run(2, "a=1"), run(3, "a=1")]) == [["0"], ["1"], ["2"], ["3"]]


def test_an_arm_is_the_mean_of_its_finished_seeds() -> None:
    runs = (
        run(0, "seed=1", psnr=25.0, steps=10, commit="a", bicubic_psnr=20.0),
        run(1, "seed=2", psnr=26.0, steps=10, commit="b", bicubic_psnr=20.0),
        run(2, "seed=3", status="failed"),
    )
    arm = make_arm("x", runs, {})
    assert (arm.status, len(arm.done), [one.name for one in arm.problems]) == ("failed", 2, ["2_run"])
    assert arm.figures == {"psnr": 25.5, "steps": 10, "commit": "a, b"}
    assert isinstance(arm.figures["steps"], int)
    assert arm.intervals["psnr"].half == pytest.approx(12.7062047 * 0.5)
    assert [row.figures for row in references([arm])] == [{"psnr": 20.0}], "one reference for all seeds"


def test_figures_of_one_run_are_its_own_to_the_last_digit() -> None:
    arm = make_arm("x", (run(0, "", psnr=0.1 + 0.2, machine="m", flag=True),), {})
    assert arm.figures == {"psnr": 0.1 + 0.2, "machine": "m", "flag": True}
    assert arm.status == "done"
