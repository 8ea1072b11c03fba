"""What a run took of memory is its own, whatever its process did before and whatever else the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from osediff_exp import runtime
from osediff_exp.runtime import machine, peak_memory_gib, prepare_process

GIB = 2**30


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a part of a process's life")
def test_a_run_does_not_inherit_the_peak_of_the_run_before_it() -> None:
    def peak(num_bytes: int) -> float:
        prepare_process(seed=0)
        torch.ones(num_bytes, dtype=torch.uint8)
        found = peak_memory_gib("cpu")
        assert found is not None
        return found

    small = peak(1)
    assert peak(GIB // 4) == pytest.approx(small + 0.25, abs=0.05)
    assert peak(1) == pytest.approx(small, abs=0.05)


def test_where_the_system_knows_the_whole_life_alone_the_first_run_has_a_peak(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "_LINUX", tmp_path / "absent")
    monkeypatch.setattr(runtime, "_runs", [])
    prepare_process(seed=0)
    first = peak_memory_gib("cpu")
    assert first is not None
    assert first > 0.05
    prepare_process(seed=0)
    assert peak_memory_gib("cpu") is None


def test_a_run_on_the_cpu_of_a_machine_with_a_gpu_tells_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    assert machine("cpu") == before
    assert machine("cuda:0").endswith("a GPU")
    found = peak_memory_gib("cpu")
    assert found is not None
    assert found > 0.05
