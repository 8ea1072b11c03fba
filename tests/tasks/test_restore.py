"""task=restore: folders in and out, re-runs, and what cannot be restored."""

from __future__ import annotations

import errno
import os
import weakref
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from restoration_parts import save_checkpoint

from osediff_exp.errors import Incomplete, UserError
from osediff_exp.models.tiling import Tiling
from osediff_exp.restoration import folder, picture_files
from osediff_exp.restoration.finished import RECORD_NAME, FinishedRecord
from osediff_exp.restoration.jobs import plan_jobs
from osediff_exp.restoration.picture_files import read_picture, write_picture
from osediff_exp.restoration.pictures import Picture
from osediff_exp.restoration.restorer import Restorer
from osediff_exp.tasks import evaluate, export, restore
from osediff_exp.tasks.loading import model_settings, refuse_model_settings

if TYPE_CHECKING:
    from osediff_exp.models.backbone import Backbone

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture(scope="module")
def checkpoint(backbone: Backbone, backbone_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(backbone, backbone_folder, tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="module")
def loaded(checkpoint: Path, backbone: Backbone) -> Restorer:
    return Restorer.from_checkpoint(checkpoint, backbone=backbone, device="cpu")


@pytest.fixture(autouse=True)
def load_once(loaded: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lend the loaded parts: every run would load them again."""

    def lent(
        cls: type[Restorer],
        path: str,
        *,
        settings: Any,
        packages: Any,
        prompt: Any,
        average: bool,
        sources: Any,
        min_side: int | None,
        color_fix: Any,
        **options: Any,
    ) -> Restorer:
        parts = {"backbone": loaded.backbone, "generator": loaded.generator, "prompts": loaded.prompts}
        return cls(**parts, min_side=min_side or 0, color_fix=color_fix or "adain", **options)

    monkeypatch.setattr(Restorer, "from_checkpoint", classmethod(lent))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    save(folder / "one.png", (5, 6, 3))
    save(folder / "deep" / "er" / "two.jpg", (4, 4, 3))
    save(folder / "deep" / "grey.png", (3, 4))
    (folder / "notes.txt").write_text("no photo")
    return folder


def save(path: Path, shape: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)).save(path)


@cache
def defaults() -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", ["task=restore", "restorer.device=cpu", "upscale=2"])


def configuration(checkpoint: Path, source: Path, *overrides: str) -> DictConfig:
    paths = [f"checkpoint={checkpoint}", f"input={source}", f"output={source.parent / 'out'}"]
    return OmegaConf.merge(defaults(), OmegaConf.from_dotlist([*paths, *overrides]))  # type: ignore[return-value]


def run(checkpoint: Path, source: Path, *overrides: str) -> dict[str, Any]:
    run_dir = source.parent / "run"
    run_dir.mkdir(exist_ok=True)
    return restore.run(configuration(checkpoint, source, *overrides), run_dir)


def incomplete(checkpoint: Path, source: Path, *overrides: str) -> tuple[str, dict[str, Any], list[str]]:
    with pytest.raises(Incomplete) as caught:
        run(checkpoint, source, *overrides)
    failed = source.parent / "run" / "failed.txt"
    return str(caught.value), caught.value.figures, failed.read_text().splitlines() if failed.exists() else []


def written(folder: Path) -> dict[str, tuple[int, int]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD_NAME)
    return {path.relative_to(folder).as_posix(): read_picture(path).size[::-1] for path in files}


def counts(figures: dict[str, Any]) -> tuple[int, int, int]:
    return figures["num_images"], figures["num_skipped"], figures["num_failed"]


def test_a_folder_keeps_its_structure(checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = run(checkpoint, photos)
    assert written(photos.parent / "out") == {"deep/er/two.png": (8, 8), "deep/grey.png": (8, 6), "one.png": (12, 10)}
    assert counts(figures) == (3, 0, 0)
    assert figures["color_fix"] == "adain"
    assert (figures["num_left_alone"], figures["seconds_per_image"] > 0) == (1, True)
    assert figures["megapixels_per_second"] > 0
    printed = capsys.readouterr().out
    assert f"3 restored: {photos.parent / 'out'}" in printed
    assert "1 file of other kinds left alone: notes.txt" in printed
    with Image.open(photos.parent / "out" / "deep" / "grey.png") as grey:
        assert grey.mode == "L"


def test_the_output_is_the_restorers(checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # load the checkpoint in earnest
    run(checkpoint, photos, "restorer.color_fix=wavelet")
    with Image.open(photos / "one.png") as photo, Image.open(photos.parent / "out" / "one.png") as output:
        expected = Restorer.from_checkpoint(checkpoint, color_fix="wavelet", device="cpu").restore(photo, scale=2)
        np.testing.assert_array_equal(np.asarray(output), np.asarray(expected))


def test_the_options_are_those_of_the_package(checkpoint: Path) -> None:
    assert instantiate(defaults().restorer.tiling) == Tiling()
    assert set(defaults().restorer) - {"_target_", "_partial_", "_convert_"} == {
        *("color_fix", "decoder", "min_side", "device", "dtype", "average", "sources", "tiling"),
        *("steps", "guidance", "seed", "negative_prompt"),
    }


def test_without_an_output_folder_it_is_the_runs(checkpoint: Path, photos: Path) -> None:
    figures = run(checkpoint, photos / "one.png", "output=null")
    assert figures["output"] == str(photos / "run" / "restored")
    assert written(photos / "run" / "restored") == {"one.png": (12, 10)}


def test_a_link_to_nothing_is_a_photo_that_was_not_restored(checkpoint: Path, photos: Path) -> None:
    (photos / "moved.png").symlink_to("nowhere.png")
    with pytest.raises(Incomplete, match="moved.png: unreadable: a link to nothing") as caught:
        run(checkpoint, photos)
    assert counts(caught.value.figures) == (3, 0, 1)


def test_an_option_that_cannot_be_is_called_by_its_key(checkpoint: Path, photos: Path) -> None:
    for option, message in (
        ("steps=5", "restorer.steps=5 is not possible"),
        ("device=cuda:9", "restorer.device=cuda:9 is not on this machine"),
    ):
        with pytest.raises(UserError, match=f"^{message}"):
            run(checkpoint, photos, f"restorer.{option}")


def test_a_second_run_does_only_what_changed(checkpoint: Path, photos: Path) -> None:
    run(checkpoint, photos)
    assert counts(run(checkpoint, photos, "restorer.device=auto")) == (0, 3, 0)
    assert run(checkpoint, photos)["seconds_per_image"] is None
    save(photos / "one.png", (3, 3, 3))  # another photo of the name
    (photos.parent / "out" / "deep" / "grey.png").write_bytes(b"cut short")
    (photos.parent / "out" / "deep" / "er" / "two.png").unlink()
    save(photos / "new.png", (2, 2, 3))
    assert counts(run(checkpoint, photos)) == (4, 0, 0)
    assert written(photos.parent / "out")["one.png"] == (6, 6)
    for change in ("upscale=3", "restorer.color_fix=none", "restorer.min_side=16", "overwrite=true"):
        assert counts(run(checkpoint, photos, change)) == (4, 0, 0), change
    os.utime(checkpoint / "checkpoints" / "last.ckpt", ns=(0, 0))  # trained on
    assert counts(run(checkpoint, photos)) == (4, 0, 0)
    assert counts(run(checkpoint, photos)) == (0, 4, 0)


# ---- what describes the model: the checkpoint's, but for prompts that were typed


def typed(monkeypatch: pytest.MonkeyPatch, checkpoint: Path | str, source: Path, *overrides: str, task: str = "restore") -> DictConfig:
    """Return the configuration of a command with ``overrides``, which Hydra then knows as typed."""
    given = [f"task={task}", f"checkpoint={checkpoint}", *overrides]
    given += [f"input={source}", f"output={source.parent / 'out'}", "upscale=2", "restorer.device=cpu"] if task == "restore" else []
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", given, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    return config


def test_typed_prompts_take_the_place_of_the_checkpoint_s(checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # load the checkpoint in earnest
    (tags := photos.parent / "tags.csv").write_text("name,tags\none,cat\n")
    source = photos / "one.png"

    def restored(*overrides: str) -> tuple[int, bytes]:
        figures = restore.run(typed(monkeypatch, checkpoint, source, *overrides), photos)
        return figures["num_images"], (photos / "out" / "one.png").read_bytes()

    (_, own), (_, none) = restored(), restored("prompt=none")
    assert own != none
    assert restored("prompt=none") == (0, none), "finished before"
    assert restored("prompt.positive=''") == (1, none), "of other settings, and the same words"
    assert restored("prompt.positive='sharp photo'") == (1, own), "the words of the checkpoint"
    assert restored("restorer.seed=0", "prompt.words=none") == (1, none)
    assert restored() == (1, own)
    of_a_cat = restored("prompt=sidecar", f"prompt.file={tags}")
    assert of_a_cat[0] == 1
    assert of_a_cat[1] not in (own, none)
    tags.write_text("name,tags\none,dogs\n")
    assert restored("prompt=sidecar", f"prompt.file={tags}")[0] == 1, "the words in the file have changed"


@pytest.mark.parametrize("task", ["restore", "evaluate", "export"])
def test_typed_settings_of_the_model_are_refused(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    run_task = {"restore": restore.run, "evaluate": evaluate.run, "export": export.run}[task]
    given = ["format=weights", f"output={tmp_path / 'x'}"] if task == "export" else []
    option = "sources" if task == "export" else "restorer.sources"
    for name, setting, remedy in (
        (checkpoint, "generator.timestep=5", "leave it out"),
        ("embedded", "backbone=sd21", "leave it out"),
        (checkpoint, "backbone.loader.sources=[x]", f"use {option}"),
    ):
        config = typed(monkeypatch, name, photos, *given, setting, task=task)
        monkeypatch.setattr(Restorer, "from_checkpoint", None)  # nothing is loaded
        with pytest.raises(UserError) as caught:
            run_task(config, tmp_path)
        assert str(caught.value).startswith(f"{setting} would change nothing: ")
        assert str(caught.value).endswith(f"carries the configuration of its training: {remedy}")


def test_osediff_pkl_is_what_the_command_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"state_dict_unet": {}}, tmp_path / "osediff.pkl")
    config = typed(monkeypatch, tmp_path / "osediff.pkl", tmp_path / "x", "backbone=sd21", "generator.timestep=5")
    refuse_model_settings(config, [tmp_path / "osediff.pkl"])
    refuse_model_settings(config, [tmp_path / "osediff.pkl", "embedded"])  # the first of them is meant
    assert model_settings(config)["generator"]["timestep"] == 5
    with pytest.raises(UserError, match="backbone=sd21 would change nothing: embedded carries"):
        refuse_model_settings(config, ["embedded"])


def test_one_stem_in_two_formats_gives_two_outputs(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.jpg"):
        save(tmp_path / "photos" / name, (2, 2, 3))
    run(checkpoint, tmp_path / "photos")
    assert set(written(tmp_path / "out")) == {"a.png.png", "a.jpg.png", "b.png"}
    run(checkpoint, tmp_path / "photos", "format=same", f"output={tmp_path / 'same'}")
    assert set(written(tmp_path / "same")) == {"a.png", "a.jpg", "b.jpg"}


def test_names_that_clash_all_the_same_are_listed(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.png.bmp", "b.png"):
        save(tmp_path / "photos" / name, (2, 2, 3))
    message, figures, failed = incomplete(checkpoint, tmp_path / "photos")
    assert "a.png and " in message
    assert "both would become a.png.png" in message
    assert counts(figures) == (2, 0, 1)
    assert len(failed) == 1


def test_what_cannot_be_restored_is_named_and_the_rest_is_done(checkpoint: Path, photos: Path) -> None:
    (photos / "bad.png").write_text("no picture")
    Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(photos / "float.tif")
    save(photos.parent / "out" / "deep" / "grey.png", (20, 20))  # somebody else's
    message, figures, failed = incomplete(checkpoint, photos)
    assert message.endswith(f"(and 2 more); all in {photos.parent / 'run' / 'failed.txt'}")
    assert counts(figures) == (2, 0, 3)
    assert sorted(line.split(": ", 1)[0] for line in failed) == [str(photos / name) for name in ("bad.png", "deep/grey.png", "float.tif")]
    assert any("unreadable: not an image" in line for line in failed)
    assert any("was not written by this program: set overwrite=true" in line for line in failed)
    assert written(photos.parent / "out")["deep/grey.png"] == (20, 20)
    assert counts(incomplete(checkpoint, photos, "overwrite=true")[1]) == (3, 0, 2)
    (photos / "bad.png").unlink()
    (photos / "float.tif").unlink()
    run(checkpoint, photos)
    assert not (photos.parent / "run" / "failed.txt").exists()


def test_16_bit_files_stay_16_bit(checkpoint: Path, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (4, 4, 3), dtype=np.uint16)
    write_picture(Picture(pixels=colours), tmp_path / "photos" / "deep.tif")
    run(checkpoint, tmp_path / "photos", "format=same")
    restored = read_picture(tmp_path / "out" / "deep.tif")
    assert (restored.depth, restored.size) == (16, (8, 8))
    assert (restored.pixels % 257 != 0).any()  # more than 8 bits, spread


def test_a_format_that_cannot_hold_a_photo_is_named(checkpoint: Path, tmp_path: Path) -> None:
    save(tmp_path / "photos" / "clear.png", (3, 3, 4))
    (tmp_path / "photos" / "clear.png").rename(tmp_path / "photos" / "clear.jpg")
    message, _, _ = incomplete(checkpoint, tmp_path / "photos", "format=same")
    assert ".jpg cannot hold transparency: use format=png" in message


def test_an_interrupted_run_leaves_whole_files_and_goes_on(checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = FinishedRecord.add

    def interrupted(self: FinishedRecord, target: Path, made_of: str, file: Path) -> None:
        add(self, target, made_of, file)
        if target.name == "grey.png":
            raise KeyboardInterrupt

    monkeypatch.setattr(FinishedRecord, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, photos)
    assert written(photos.parent / "out") == {"deep/er/two.png": (8, 8)}
    monkeypatch.undo()
    assert counts(run(checkpoint, photos)) == (2, 1, 0)


def test_a_record_cut_short_loses_its_last_line_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        FinishedRecord(tmp_path).add(Path(name), "1", tmp_path / name)
    path = tmp_path / RECORD_NAME
    path.write_text(path.read_text()[:-9])
    assert FinishedRecord(tmp_path).is_finished(Path("a"), "1")
    assert not FinishedRecord(tmp_path).is_finished(Path("b"), "1")
    FinishedRecord(tmp_path).add(Path("b"), "2", tmp_path / "b")
    assert FinishedRecord(tmp_path).is_finished(Path("b"), "2")
    assert not FinishedRecord(tmp_path).is_finished(Path("b"), "1")


def test_a_full_disk_ends_the_run_in_one_line(checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if self.name == ".grey.png.part":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(picture_files.Path, "write_bytes", full)
    message, figures, _ = incomplete(checkpoint, photos)
    assert "deep/grey.png cannot be written (No space left on device): make room" in message
    assert counts(figures) == (1, 0, 0)
    assert set(written(photos.parent / "out")) == {"deep/er/two.png"}


@pytest.mark.parametrize("largest", [0, 30, 1000])
def test_of_large_photos_one_is_in_memory(
    checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    """The outputs have 48, 64 and 120 pixels; whatever counts as large, they are the same."""
    alive: list[weakref.ref[Picture]] = []
    most = 0

    def reading(path: Path) -> Picture:
        nonlocal most
        picture = read_picture(path)
        alive.append(weakref.ref(picture))
        most = max(most, sum(found() is not None for found in alive))
        return picture

    run(checkpoint, photos)
    before = {name: (photos.parent / "out" / name).read_bytes() for name in written(photos.parent / "out")}
    monkeypatch.setattr(folder, "LARGE", largest)
    monkeypatch.setattr(folder, "read_picture", reading)
    run(checkpoint, photos, "overwrite=true")
    assert {name: (photos.parent / "out" / name).read_bytes() for name in before} == before
    assert (most == 1) == (largest < 1000)


def test_not_enough_memory_is_named(checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    restored = Restorer.restore_picture

    def greedy(self: Restorer, picture: Picture, *, scale: int, name: str) -> Picture:
        if name == "one":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return restored(self, picture, scale=scale, name=name)

    monkeypatch.setattr(Restorer, "restore_picture", greedy)
    message, figures, _ = incomplete(checkpoint, photos)
    assert "one.png: not enough memory for 6 x 5 at scale 2: use smaller tiles (restorer.tiling)" in message
    assert counts(figures) == (2, 0, 1)


def test_outputs_can_never_replace_photos(tmp_path: Path) -> None:
    save(tmp_path / "all" / "photos" / "a.png", (2, 2, 3))
    for source, output in ((tmp_path / "all" / "photos", tmp_path / "all"), (tmp_path / "all", tmp_path / "all")):
        with pytest.raises(UserError, match="give another output folder"):
            plan_jobs(source, output, "png")
    with pytest.raises(UserError, match="give another output folder"):
        plan_jobs(tmp_path / "all" / "photos" / "a.png", tmp_path / "all" / "photos", "png")
    with pytest.raises(UserError, match=r"a\.png is a file: give a folder"):
        plan_jobs(tmp_path / "all", tmp_path / "all" / "photos" / "a.png", "png")


def test_outputs_inside_the_input_are_no_photos(tmp_path: Path) -> None:
    for name in ("a.png", "restored/a.png", ".thumbnails/a.png"):
        save(tmp_path / name, (2, 2, 3))
    jobs, clashes = plan_jobs(tmp_path, tmp_path / "restored", "png")
    assert ([str(job.target) for job in jobs], clashes) == (["a.png"], [])


def test_settings_that_make_no_sense(checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, override, message in (
        (photos, "upscale=9", "upscale=9 is not possible: give a whole number from 1 to 8"),
        (photos, "format=pgn", "format=pgn is unknown: use png or same. Did you mean 'png'?"),
        (photos, "restorer.color_fix=adian", "Did you mean 'adain'?"),
        (tmp_path / "empty", "upscale=2", "holds no photo"),
    ):
        with pytest.raises(UserError) as caught:
            run(checkpoint, source, override)
        assert message in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1
