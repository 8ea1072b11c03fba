"""W&B: what is logged under which names, and that no server, however bad, stops or slows a training."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb
from fake_wandb import KEY, FakeWandb, fake_wandb
from omegaconf import OmegaConf
from PIL import Image

from osediff_exp.callbacks import wandb_server
from osediff_exp.callbacks.wandb_history import pictures_until, rows_until
from osediff_exp.callbacks.wandb_logger import wandb_logger
from osediff_exp.callbacks.wandb_record import chosen_mode, has_key, read_record, sync_command, unsent_folders, write_record
from osediff_exp.callbacks.wandb_run import WandbRun, closed_as_failed, log_pictures
from osediff_exp.callbacks.wandb_server import fault_of_server, knock, remember_silence
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
    wandb.teardown()  # W&B's service process may still be writing what it has said is finished
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


@pytest.mark.slow
def test_each_run_is_its_own_even_where_one_before_was_left_open(tmp_path: Path) -> None:
    first, second = start(tmp_path / "a", name="first"), start(tmp_path / "b", name="second")
    first.log_metrics({"a": 1.0}, step=1)
    second.log_metrics({"b": 1.0}, step=1)
    second.finish({})
    assert first.version != second.version
    assert "second" in inspect(tmp_path / "b")
    assert "second" not in inspect(tmp_path / "a")


def test_a_folder_keeps_its_id_and_only_its_last_part_is_to_be_sent(tmp_path: Path) -> None:
    first = start(tmp_path / "run")
    first.finalize("failed")
    second = start(tmp_path / "run")
    second.finish({})
    record = read_record(tmp_path / "run")
    assert first.version == second.version
    assert record is not None
    assert (record.group, record.uploaded) == ("vsd/1", False)
    assert [path.name for path in unsent_folders(tmp_path / "run")] == [record.files]
    write_record(tmp_path / "run", replace(record, uploaded=True))
    assert unsent_folders(tmp_path / "run") == []


def test_without_a_record_the_newest_part_of_each_id_is_to_be_sent(tmp_path: Path) -> None:
    for name in ("run-20260102_000000-a", "offline-run-20260101_000000-a", "offline-run-20260101_000000-b"):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    assert [path.name for path in unsent_folders(tmp_path)] == ["offline-run-20260101_000000-b", "run-20260102_000000-a"]


def test_what_is_replayed_ends_at_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss,val/psnr\n1,0.5,\n2,0.25,25.5\n3,0.125,\n")
    assert rows_until(tmp_path, 2) == [(1, {"train/loss": 0.5}), (2, {"train/loss": 0.25, "val/psnr": 25.5})]
    assert rows_until(tmp_path / "absent", 2) == []
    colours = {"bicubic": (255, 0, 0), "hq": (0, 0, 255), "steps/000002": (0, 255, 0), "steps/000003": (0, 0, 0)}
    for kind, colour in colours.items():
        (tmp_path / "images" / kind).mkdir(parents=True)
        Image.new("RGB", (4, 4), colour).save(tmp_path / "images" / kind / "face.png")
    ((step, ((name, picture),)),) = pictures_until(tmp_path, 2, ["face", "absent"])
    assert (step, name, picture.size) == (2, "face", (12, 4))
    assert [picture.getpixel((x, 0)) for x in (0, 4, 8)] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


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


def sent_rows(server: FakeWandb, run: str) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in server.lines[run]]
    return [(row["trainer/global_step"], row["train/loss"]) for row in rows if "train/loss" in row]


def test_a_resumed_run_has_each_step_once_and_all_steps(server: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("WANDB_MODE", "offline")
    first = start(folder)
    for step in (1, 2, 3, 4):  # the checkpoint is that of step 2: 3 and 4 are done again
        first.log_metrics({"train/loss": step / 10}, step=step)
    first.finish({}, exit_code=1)
    (folder / "metrics.csv").write_text("step,train/loss\n1,0.1\n2,0.2\n3,0.3\n4,0.4\n")
    second = start(folder, resume_step=2)
    for step in (3, 4, 5):
        second.log_metrics({"train/loss": step / 20}, step=step)
    second.finish({})
    wanted = [(1, 0.1), (2, 0.2), (3, 0.15), (4, 0.2), (5, 0.25)]
    subprocess.run(shlex.split(sync_command(unsent_folders(folder))), check=True, capture_output=True, cwd=tmp_path)
    assert sent_rows(server, second.version) == wanted
    assert server.exit_codes == {second.version: 0}
    assert unsent_folders(folder) == []
    monkeypatch.delenv("WANDB_MODE")
    (folder / "metrics.csv").write_text("step,train/loss\n1,0.1\n2,0.2\n3,0.15\n4,0.2\n5,0.25\n")
    third = start(folder, resume_step=4, finish_timeout=20.0)  # the same online
    third.log_metrics({"train/loss": 0.75}, step=5)
    third.finish({})
    assert sent_rows(server, second.version) == [*wanted[:-1], (5, 0.75)]


def test_a_retry_replaces_the_dead_attempt(server: FakeWandb, tmp_path: Path) -> None:
    for loss, exit_code in ((0.5, 1), (0.25, 0)):
        run = start(tmp_path / "run", finish_timeout=20.0)
        run.log_metrics({"train/loss": loss}, step=1)
        run.finish({}, exit_code=exit_code)
    assert sent_rows(server, run.version) == [(1, 0.25)]
    assert server.exit_codes == {run.version: 0}


@pytest.mark.slow
def test_a_run_that_was_deleted_on_the_server_gets_a_new_id(server: FakeWandb, tmp_path: Path) -> None:
    first = start(tmp_path / "run", finish_timeout=20.0)
    first.finish({})
    server.deleted = {first.version}
    second = start(tmp_path / "run", init_timeout=4.0, finish_timeout=20.0)  # W&B asks again and again until then
    second.finish({})
    assert second.version != first.version
    assert server.exit_codes[second.version] == 0


def test_an_error_outside_fit_closes_the_run_as_failed(server: FakeWandb, tmp_path: Path) -> None:
    run = start(tmp_path / "run", finish_timeout=20.0)
    with pytest.raises(KeyboardInterrupt), closed_as_failed([run]):
        raise KeyboardInterrupt
    assert server.exit_codes == {run.version: 1}


@pytest.mark.parametrize("silent", ["POST", "all"])
def test_a_silent_server_turns_the_run_offline(
    server: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setattr(wandb_server.fault_of_server, "__kwdefaults__", {"patience": 0.5})
    server.silent = silent
    run = start(tmp_path / "run", init_timeout=300.0)  # not waited for: a test that hangs shows it
    run.log_metrics({"train/loss": 0.5}, step=10)
    run.finish({})
    assert server.operations("upsertBucket") == []
    (part,) = unsent_folders(tmp_path / "run")
    assert part.name.startswith("offline-run-")
    assert f"cannot be reached (no answer within 0.5 s): this run is logged offline; send it later: {sync_command([part])}" in caplog.text
    assert "train/loss" in inspect(tmp_path / "run")


def test_a_server_that_falls_silent_while_a_run_starts_is_remembered(
    server: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("osediff_exp.callbacks.wandb_logger.fault_of_server", lambda *_: "")
    server.silent = "POST"
    start(tmp_path / "run", init_timeout=0.5, sweep_folder=str(tmp_path)).finish({})
    assert len(unsent_folders(tmp_path / "run")) == 1
    server.silent = ""
    assert fault_of_server(server.url, tmp_path)


def test_a_refused_connection_turns_the_run_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    start(tmp_path / "run", "online", init_timeout=300.0).finish({})
    assert unsent_folders(tmp_path / "run")


def test_a_refusal_is_an_answer_and_silence_is_none(server: FakeWandb, monkeypatch: pytest.MonkeyPatch) -> None:
    knock(server.url)
    server.silent = "POST"
    with pytest.raises(OSError, match=r"timed out|no answer"):
        knock(server.url, patience=0.3)
    with pytest.raises(OSError):
        knock("http://127.0.0.1:9", patience=5)
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")  # W&B's own program speaks SOCKS, Python does not
    knock("http://127.0.0.1:9")


def test_a_sweep_remembers_a_silent_server_for_ten_minutes_or_until_it_is_started_again(
    server: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_silence(server.url, tmp_path, "no answer")
    assert fault_of_server(server.url, tmp_path) == "no answer, 0 s ago"
    assert fault_of_server(server.url, tmp_path / "other") == ""
    with pytest.raises(OSError):
        knock("http://127.0.0.1:9")
    assert fault_of_server("http://127.0.0.1:9", tmp_path)  # another server: asked
    remember_silence(server.url, tmp_path, "no answer")
    now = time.time()
    with monkeypatch.context() as later:
        later.setattr(wandb_server.time, "time", lambda: now + 601)
        assert fault_of_server(server.url, tmp_path) == ""
    multirun = tmp_path / "multirun.yaml"
    multirun.touch()
    os.utime(multirun, (now + 60, now + 60))
    assert fault_of_server(server.url, tmp_path) == ""


def test_a_server_lost_midway_neither_slows_steps_nor_holds_the_end(
    server: FakeWandb, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(tmp_path / "run", finish_timeout=1.0)
    server.silent = "all"
    started = time.monotonic()
    for step in range(200):
        run.log_metrics({"train/loss": 0.5}, step=step)
    assert time.monotonic() - started < 20  # 200 steps that each waited 1 s would take 200
    run.finish({"psnr": 1.0})
    wandb.teardown()
    assert time.monotonic() - started < 60  # W&B itself would go on trying for days
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


def test_a_sweep_s_progress_names_the_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    from osediff_exp.tasks.train import build_callbacks

    progress = {"_target_": "osediff_exp.callbacks.progress.LiveProgress", "label": None}
    config = OmegaConf.create({"name": None, "report": {"labels": {}}, "callbacks": {"progress": progress, "ema": None}})
    for mode, label in (("MULTIRUN", "lambda2=0, seed=2"), ("RUN", None)):
        monkeypatch.setattr(arm_module, "HydraConfig", job(mode, ["lambda2=0", "seed=2"], []))
        (callback,) = build_callbacks(config, Path("0"))
        assert getattr(callback, "label", "absent") == label
