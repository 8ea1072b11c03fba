"""W&B: what is logged under which names, and that no server, however bad, stops or slows a training."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from fake_wandb import KEY, FakeWandb, fake_wandb
from omegaconf import OmegaConf
from PIL import Image

from osediff_exp.callbacks.wandb_logger import WandbRun, log_pictures, wandb_logger
from osediff_exp.callbacks.wandb_record import chosen_mode, has_key, read_record, unsent_folders
from osediff_exp.tasks import arm as arm_module
from osediff_exp.tasks.arm import Arm, sweep_name, this_arm


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No key, no settings of this machine, and a W&B service process that ends with the test."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    with fake_wandb() as fake:
        monkeypatch.setenv("WANDB_BASE_URL", fake.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield fake


def start(folder: Path, mode: Any = "auto", **settings: Any) -> WandbRun:
    folder.mkdir(exist_ok=True)
    defaults: dict[str, Any] = {"project": "osediff_exp", "entity": None, "tags": ["lambda2=0"], "init_timeout": 2.0, "finish_timeout": 1.0}
    more = {"name": "without VSD", "group": "vsd/1", "settings": {"seed": 1, "loss": {"weight": 2.5}}}
    run = wandb_logger(mode=mode, folder=str(folder), **defaults | more | settings)
    assert run is not None
    return run


def inspect(folder: Path, *options: str) -> str:
    (path,) = folder.glob("wandb/*run-*/*.wandb")
    program = Path(sys.executable).with_name("wandb")
    return subprocess.run([program, "leet", "inspect", *options, "--json", path], capture_output=True, text=True, check=True).stdout


# ---- what is in an offline run


def test_an_offline_run_holds_names_configuration_keys_axis_and_figures(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    run.log_metrics({"train/loss": 0.5, "vsd/grad_norm": 3.0}, step=10)
    run.log_metrics({"val/psnr": 25.0}, step=10)
    log_pictures([run], [("face", Image.new("RGB", (8, 8)))], step=10)
    run.finish({"psnr": 25.0, "machine": "2 cores", "niqe": None})
    summary = json.loads(inspect(tmp_path / "run", "--summary"))
    everything = inspect(tmp_path / "run")
    assert summary["config"]["loss"]["weight"] == 2.5
    for text in ("without VSD", "vsd/1", "lambda2=0", "trainer/global_step", "val/pictures"):
        assert text in everything
    assert {"psnr", "machine", "train/loss", "vsd/grad_norm", "val/psnr"} <= set(json.dumps(summary).replace('"', " ").split())


def test_each_run_is_its_own_even_where_one_before_was_left_open(tmp_path: Path) -> None:
    first, second = start(tmp_path / "a", name="first"), start(tmp_path / "b", name="second")
    first.log_metrics({"a": 1.0}, step=1)
    second.log_metrics({"b": 1.0}, step=1)
    second.finish({})
    assert first.version != second.version
    assert "second" in inspect(tmp_path / "b")
    assert "second" not in inspect(tmp_path / "a")


def test_a_resumed_training_goes_on_under_the_same_id(tmp_path: Path) -> None:
    first = start(tmp_path / "run")
    first.finalize("failed")
    second = start(tmp_path / "run", resumed=True)
    second.finish({})
    record = read_record(tmp_path / "run")
    assert first.version == second.version
    assert record is not None
    assert (record.group, record.uploaded) == ("vsd/1", False)
    assert len(unsent_folders(tmp_path / "run")) in (1, 2)  # two starts within a second share a folder
    third = start(tmp_path / "run")
    third.finish({})
    assert third.version != first.version


def test_long_names_are_shortened_to_what_the_server_takes(tmp_path: Path) -> None:
    start(tmp_path / "run", tags=["x" * 65, "x" * 65, ""], name="n" * 200).finish({})
    text = inspect(tmp_path / "run")
    assert f'"{"x" * 61}..."' in text
    assert f'"{"n" * 125}..."' in text


def test_a_failing_wandb_is_dropped_and_the_training_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = start(tmp_path / "run")

    def crash(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("the service has died\nmore")

    assert run._run is not None
    run._run.log, kept = crash, run._run.finish  # type: ignore[method-assign]
    for step in range(3):
        run.log_metrics({"a": 1.0}, step=step)
    run.finish({"psnr": 1.0})
    kept()
    assert caplog.text.count("the service has died)") == 1


# ---- keys


def test_a_key_is_found_in_the_environment_or_for_the_host_that_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080/")
    (tmp_path / "netrc").write_text("machine example.org login user password x\n")
    (tmp_path / "netrc").chmod(0o600)
    assert not has_key()
    (tmp_path / "netrc").write_text("machine wandb.example.org:8080 login user password x\n")
    assert has_key()
    monkeypatch.setenv("NETRC", "/nowhere")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert has_key()


def test_auto_follows_wandb_mode_and_a_mode_that_is_set_follows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert chosen_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert chosen_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert (chosen_mode("auto"), chosen_mode("online")) == ("offline", "online")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    defaults: dict[str, Any] = {"project": "p", "entity": None, "tags": [], "init_timeout": 1.0}
    assert wandb_logger(mode="auto", folder=str(tmp_path / "run"), **defaults) is None
    assert not (tmp_path / "run").exists()


# ---- servers


def test_an_online_run_arrives(server: FakeWandb, tmp_path: Path) -> None:
    run = start(tmp_path / "run", finish_timeout=20.0)
    run.log_metrics({"train/loss": 0.5}, step=10)
    run.finish({"psnr": 25.0})
    record = read_record(tmp_path / "run")
    assert record is not None
    assert (record.uploaded, record.url) == (True, f"{server.url}/team/osediff_exp/runs/{record.id}")
    assert unsent_folders(tmp_path / "run") == []
    (sent, *_) = server.operations("upsertBucket")
    assert (sent["groupName"], sent["displayName"], sent["tags"]) == ("vsd/1", "without VSD", ["lambda2=0"])
    assert [(row["train/loss"], row["trainer/global_step"]) for row in server.history() if "train/loss" in row] == [(0.5, 10)]


@pytest.mark.parametrize("silent", ["POST", "all"])
def test_a_silent_server_turns_the_run_offline_after_init_timeout(
    server: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture, silent: str
) -> None:
    server.silent = silent
    started = time.monotonic()
    run = start(tmp_path / "run", init_timeout=1.0)
    run.log_metrics({"train/loss": 0.5}, step=10)
    run.finish({})
    assert time.monotonic() - started < 10
    assert "cannot be reached" in caplog.text
    assert [path.name.startswith("offline-run-") for path in unsent_folders(tmp_path / "run")].count(True) == 1
    assert "train/loss" in "".join(path.read_text("latin1") for path in (tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))


def test_a_refused_connection_turns_the_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    start(tmp_path / "run", "online", init_timeout=1.0).finish({})
    assert unsent_folders(tmp_path / "run")


def test_a_server_lost_midway_neither_slows_steps_nor_holds_the_end(
    server: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(tmp_path / "run", finish_timeout=1.0)
    server.silent = "all"
    started = time.monotonic()
    for step in range(200):
        run.log_metrics({"train/loss": 0.5}, step=step)
    assert time.monotonic() - started < 2
    run.finish({"psnr": 1.0})
    wandb.teardown()
    assert time.monotonic() - started < 10
    record = read_record(tmp_path / "run")
    assert record is not None
    assert not record.uploaded
    assert len(unsent_folders(tmp_path / "run")) == 1
    assert "goes on without it" in caplog.text


# ---- the arm's names


def job(mode: str, task: list[str], shared: list[str]) -> SimpleNamespace:
    naming = SimpleNamespace(override_dirname=SimpleNamespace(exclude_keys=shared))
    hydra = SimpleNamespace(
        mode=arm_module.RunMode[mode],
        runtime=SimpleNamespace(choices={"experiment": "vsd_ablation"}),
        job=SimpleNamespace(config=naming),
        overrides=SimpleNamespace(task=task),
        sweep=SimpleNamespace(dir="/runs/vsd_ablation/2026"),
    )
    return SimpleNamespace(initialized=lambda: True, get=lambda: hydra)


def test_an_arm_is_named_by_what_is_swept_and_by_the_report_s_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    config = OmegaConf.create({"name": None, "report": {"labels": {"lambda2=0": "without VSD"}}})
    task = ["+experiment=vsd_ablation", "lambda2=0", "lambda1=3", "seed=2"]
    monkeypatch.setattr(arm_module, "HydraConfig", job("MULTIRUN", task, ["experiment"]))
    tags = ("vsd_ablation", "lambda2=0", "lambda1=3", "seed=2")
    assert this_arm(config, Path("0")) == Arm("vsd_ablation/2026", "without VSD, lambda1=3", "without VSD, lambda1=3, seed=2", tags)
    monkeypatch.setattr(arm_module, "HydraConfig", job("MULTIRUN", ["seed=2"], []))
    assert this_arm(config, Path("0")).name == "default, seed=2"
    monkeypatch.setattr(arm_module, "HydraConfig", job("RUN", task, []))
    assert this_arm(config, Path("2026-11")) == Arm(None, "2026-11", "2026-11", ("vsd_ablation",))


def test_a_sweep_s_name_holds_nothing_that_a_filter_would_read() -> None:
    assert sweep_name(Path('/a/it\'s "=x"/<2026>_b-c.d')) == "it-s --x-/-2026-_b-c.d"
