"""A training's identity is what decides what is learnt, whatever its seed and folders."""

from __future__ import annotations

from typing import Any

import pytest

from osediff_exp.checkpoints.training_identity import training_of


def config(seed: int = 1, **changed: Any) -> dict[str, Any]:
    method = {"name": "sinsr", "needs": {"teacher": f"/runs_{seed}/resshift"}}
    data = {"sampler_seed": seed, "crop_size": 96, "roots": ["a"]}
    return {"seed": seed, "name": f"run {seed}", "method": method, "data": data, "trainer": {"max_steps": 250}} | changed


def test_seeds_and_the_folders_of_earlier_stages_make_no_other_training() -> None:
    first, second = training_of(config(1)), training_of(config(2, resume="x"))
    assert first is not None
    assert second is not None
    assert (first.seed, second.seed) == (1, 2)
    assert first.key == second.key


@pytest.mark.parametrize("changed", [{"trainer": {"max_steps": 1}}, {"method": {"name": "resshift"}}, {"lambda2": 0.5}, {"data": {}}])
def test_whatever_decides_what_is_learnt_makes_another(changed: dict[str, Any]) -> None:
    one, other = training_of(config()), training_of(config(**changed))
    assert one is not None
    assert other is not None
    assert one.key != other.key


def test_a_configuration_that_is_no_trainings_has_none() -> None:
    assert training_of({"backbone": {}, "generator": {}}) is None
    assert training_of({"seed": 1}) is None
    assert training_of(config() | {"seed": None}) is None
