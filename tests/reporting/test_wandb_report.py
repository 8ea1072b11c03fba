"""The W&B report of a sweep: what it shows, that it is built without a network, published, updated, and never waits for long."""

from __future__ import annotations

import json
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the library still declares its classes in pydantic's old way
    pytest.importorskip("wandb_workspaces.reports.v2", reason="the extra wandb-report is not installed")

import wandb
from fake_wandb import KEY, FakeWandb, fake_wandb
from sweep_folders import make_seed_sweep, make_sweep

from osediff_exp.callbacks.wandb_record import WandbRecord, read_record, write_record
from osediff_exp.callbacks.wandb_server import within
from osediff_exp.errors import Incomplete, UserError
from osediff_exp.tasks import report
from osediff_exp.tasks.wandb_report.content import run_sets, sections

GROUP = "vsd and or/2026-11-23_10-00-00.5"


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
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


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two arms of three seeds, logged offline."""
    folder = make_seed_sweep(tmp_path / "my sweep", pictures=1)
    for number, run in enumerate(sorted(path.parent for path in folder.glob("*/config.yaml"))):
        (run / "wandb" / f"offline-run-2026-{number}").mkdir(parents=True)
        write_record(run, WandbRecord(id=f"id{number}", project="osediff_exp", group=GROUP))
    return folder


def run_task(sweep: Path, mode: str = "auto", target: str = "wandb", **wandb_settings: Any) -> dict[str, Any]:
    settings = {"mode": mode, "entity": None, "finish_timeout": 20.0} | wandb_settings
    return report.run(OmegaConf.create({"runs": str(sweep), "target": target, "logger": {"wandb": settings}}), sweep)


def written(sweep: Path) -> dict[str, Any]:
    return json.loads((sweep / "wandb_report.json").read_text())


def grids(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return heading -> grid below it."""
    blocks = spec["blocks"]
    pairs = pairwise(blocks)
    return {head["children"][0]["text"]: grid["metadata"] for head, grid in pairs if grid["type"] == "panel-grid"}


# ---- what it shows


def test_offline_the_report_is_a_file_with_the_commands_that_publish_it(sweep: Path) -> None:
    figures = run_task(sweep)
    found = written(sweep)
    assert (figures["wandb_report"], figures["wandb_report_file"]) == (None, str(sweep / "wandb_report.json"))
    assert (found["title"], found["project"], found["url"]) == ("VSD over seeds", "osediff_exp", None)
    sync, publish = map(shlex.split, found["to_do"])
    assert sync[:5] == [sys.executable, "-m", "wandb", "sync", "--include-online"]
    assert sorted(Path(path).name for path in sync[5:]) == [f"offline-run-2026-{number}" for number in range(6)]
    assert all(Path(path).is_absolute() for path in sync[5:])
    assert publish[:3] == [sys.executable, "-m", "osediff_exp"]
    assert publish[3:] == ["task=report", f"runs='{sweep}'", "target=wandb", "logger.wandb.mode=online"]
    assert not (sweep / "report.html").exists()


def test_every_grid_has_a_run_set_per_arm_with_its_seeds_and_no_other_run(sweep: Path) -> None:
    run_task(sweep)
    found = grids(written(sweep)["spec"])
    overrides = {path.parents[1]: path.read_text() for path in sweep.glob("*/.hydra/overrides.yaml")}
    ids = {read_record(folder).id: text for folder, text in overrides.items()}  # type: ignore[union-attr]
    for grid in found.values():
        first, second = grid["runSets"]
        assert (first["name"], second["name"]) == ("without VSD (baseline)", "with VSD")
        ((one,), (other,)) = (runs["filters"]["filters"] for runs in (first, second))
        assert (one["key"], one["op"]) == ({"section": "run", "name": "name"}, "IN")
        assert {"lambda2=0" in ids[name] for name in one["value"]} == {True}
        assert sorted([*one["value"], *other["value"]]) == sorted(ids)
    assert "project" not in found["Validation"]["runSets"][0]  # the report's own: naming one would ask the network


def test_many_arms_are_two_run_sets() -> None:
    ids = {str(number): [f"id{number}"] for number in range(20)}
    assert run_sets(ids, "3") == {"3 (baseline)": ["id3"], "other arms": [f"id{number}" for number in range(20) if number != 3]}
    assert run_sets(ids, None) == {"all arms": [f"id{number}" for number in range(20)]}
    assert run_sets({"a": ["1"]}, None) == {"a": ["1"]}


def test_the_commands_are_absolute_and_name_the_team(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sweep.parent)
    run_task(Path(sweep.name), entity="lab")
    sync, publish = map(shlex.split, written(sweep)["to_do"])
    assert all(Path(path).is_dir() and Path(path).is_absolute() for path in sync[5:])
    assert f"runs='{sweep}'" in publish
    assert publish[-1] == "logger.wandb.entity=lab"


def test_wandb_mode_is_followed(server: FakeWandb, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert run_task(sweep)["wandb_report"] is None
    assert server.views == {}


def test_curves_have_the_keys_of_metrics_csv_over_the_optimizer_step_as_means_over_seeds(sweep: Path) -> None:
    run_task(sweep)
    found = grids(written(sweep)["spec"])
    panels = {title: [panel["config"] for panel in grid["panelBankSectionConfig"]["panels"]] for title, grid in found.items()}
    assert [config["metrics"] for config in panels["Validation"]] == [["val/psnr"], ["val/niqe"]]
    assert {config["xAxis"] for config in panels["Validation"] + panels["Losses"]} == {"trainer/global_step"}
    assert [config["metrics"] for config in panels["Final figures"]] == [["psnr"], ["ssim"], ["st_lpips"], ["niqe"]]
    assert {(config["groupBy"], config["groupAgg"]) for config in panels["Final figures"]} == {("arm.value", "mean")}
    kinds = {title: grid["panelBankSectionConfig"]["panels"][0]["viewType"] for title, grid in found.items()}
    assert (kinds["Settings"], kinds["Pictures: low quality, restored, original"]) == ("Run Comparer", "Media Browser")
    assert panels["Pictures: low quality, restored, original"][0]["mediaKeys"] == ["val/pictures"]


def test_panels_of_a_grid_do_not_overlap(sweep: Path) -> None:
    run_task(sweep)
    for grid in grids(written(sweep)["spec"]).values():
        cells = [
            (x, y)
            for panel in grid["panelBankSectionConfig"]["panels"]
            for x in range(panel["layout"]["x"], panel["layout"]["x"] + panel["layout"]["w"])
            for y in range(panel["layout"]["y"], panel["layout"]["y"] + panel["layout"]["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24


def test_the_text_is_question_table_and_command_without_links_to_local_files(sweep: Path) -> None:
    run_task(sweep)
    (text,) = [block["content"] for block in written(sweep)["spec"]["blocks"] if block["type"] == "markdown-block"]
    assert text.startswith("Is what VSD changes more than chance?")
    for part in ("| without VSD |", "lambda2=0,1 seed=1,2,3", "95 % interval"):
        assert part in text
    assert "report.html" not in text


def test_a_sweep_without_seeds_is_not_averaged(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "sweep", pictures=1)
    write_record(sweep / "0_experiment=vsd_ablation,lambda2=0", WandbRecord(id="a", project="p", group="g"))
    run_task(sweep)
    (config, *_) = [panel["config"] for panel in grids(written(sweep)["spec"])["Validation"]["panelBankSectionConfig"]["panels"]]
    assert "groupBy" not in config


def test_keys_are_sorted_into_sections() -> None:
    keys = ["train/loss", "train/lr/vsd", "train/grad_norm/generator", "val/psnr", "val/bicubic_psnr", "vsd/cosine", "train/vsd_critic"]
    assert sections(keys) == [
        ("Validation", ["val/psnr"]),
        ("Losses", ["train/loss", "train/vsd_critic"]),
        ("Diagnostics: vsd", ["vsd/cosine"]),
        ("Optimization", ["train/lr/vsd", "train/grad_norm/generator"]),
    ]


# ---- publishing


def test_online_it_is_published_and_the_same_command_updates_it(server: FakeWandb, sweep: Path) -> None:
    first = run_task(sweep)
    assert first["wandb_report"] == f"{server.url}/team/osediff_exp/reports/VSD-over-seeds--view1"
    assert server.views["view1"]["blocks"][1] == written(sweep)["spec"]["blocks"][1]
    assert [shlex.split(command)[3] for command in written(sweep)["to_do"]] == ["sync"]  # the runs are still to send
    assert run_task(sweep)["wandb_report"] == first["wandb_report"]
    assert list(server.views) == ["view1"]


def test_a_report_deleted_on_the_server_is_made_anew(server: FakeWandb, sweep: Path) -> None:
    run_task(sweep)
    server.views = {"another": {}}
    assert str(run_task(sweep)["wandb_report"]).endswith("--view2")


def test_a_silent_server_costs_the_patience_and_keeps_the_place_of_the_report(server: FakeWandb, sweep: Path) -> None:
    run_task(sweep)
    server.silent = "all"
    started = time.monotonic()
    assert run_task(sweep, finish_timeout=1.0)["wandb_report"] is None
    assert time.monotonic() - started < 30
    assert written(sweep)["id"] == "view1"
    assert "task=report" in written(sweep)["to_do"][1]
    with pytest.raises(Incomplete, match="not published .no answer within 1 s") as caught:
        run_task(sweep, "online", finish_timeout=1.0)
    assert caught.value.figures["arms"] == 2


def test_online_without_a_key_says_so(sweep: Path) -> None:
    with pytest.raises(Incomplete, match="not published"):
        run_task(sweep, "online")
    assert written(sweep)["spec"]


def test_all_makes_both(sweep: Path) -> None:
    figures = run_task(sweep, "offline", "all")
    assert Path(figures["report"]).is_file()
    assert Path(figures["wandb_report_file"]).is_file()


def test_mistakes_are_one_line(tmp_path: Path, sweep: Path) -> None:
    with pytest.raises(UserError, match="target=wanb is unknown.*Did you mean 'wandb'"):
        run_task(sweep, target="wanb")
    with pytest.raises(UserError, match="no run in .* was logged with W&B"):
        run_task(make_sweep(tmp_path / "other", pictures=0))


def test_within_passes_results_and_errors_on() -> None:
    assert within(5, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(5, lambda: 1 // 0)
    with pytest.raises(TimeoutError, match=r"no answer within 0.05 s"):
        within(0.05, lambda: time.sleep(0.5))
