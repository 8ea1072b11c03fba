"""A sweep on a real Slurm of one node: one arm is killed, the same command completes the sweep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_paths import Call, folder, result
from slurm_cluster import cluster, why_not

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
SWEEP = ["-m", "seed=1,17,2", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=5", "hydra.launcher.cpus_per_task=1"]


def test_a_killed_arm_stops_no_other_and_the_same_command_completes_the_sweep(
    call: Call, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not installed")
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with cluster(tmp_path_factory.mktemp("slurm")) as environment:
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, environment[name])
        killed = call(*SWEEP)
        assert killed.returncode == 1, killed.stderr
        sweep = folder(killed)
        assert "error: 1_seed=17: killed from outside" in killed.stderr
        assert (sweep / "1_seed=17" / "error.txt").read_text().startswith("killed from outside")
        assert "1 of 3 runs failed" in killed.stderr
        before = finished(sweep)
        assert list(before) == ["0_seed=1", "2_seed=2"]
        monkeypatch.setenv("LUCKY", "1")
        done = call(*SWEEP)
        assert done.returncode == 0, done.stderr
        assert folder(done) == sweep
    after = finished(sweep)
    assert list(after) == ["0_seed=1", "1_seed=17", "2_seed=2"]
    assert {name: after[name] for name in before} == before
    assert after["1_seed=17"]["resume"] == "auto"


def finished(sweep: Path) -> dict[str, dict[str, object]]:
    return {path.parent.name: result(path.parent) for path in sorted(sweep.glob("*/result.json"))}
