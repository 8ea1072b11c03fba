"""The restorers that are no checkpoint: plain enlargement, finished outputs, other projects' models; and how each is named."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.models.winograd import WinogradConv2d
from osediff_exp.restoration import spandrel_model
from osediff_exp.restoration.bicubic import BicubicRestorer
from osediff_exp.restoration.outputs import FolderRestorer
from osediff_exp.restoration.spandrel_model import SpandrelRestorer
from osediff_exp.restoration.specs import RestorerSpec, name_restorers, parse_restorer


def picture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def as_tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).permute(2, 0, 1)[None]


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_no_label_begins_the_name_of_a_figure() -> None:
    named = name_restorers([("st", "bicubic"), ("kid", "bicubic"), ("psnr", "bicubic")], figures={"st_lpips", "kid", "kid_se", "psnr"})
    assert list(named) == ["st_2", "kid_2", "psnr"]


def test_bicubic_is_pillows() -> None:
    pixels = [picture(5, 7, seed=seed) for seed in (1, 2)]
    restored = BicubicRestorer()(torch.cat([as_tensor(one) for one in pixels]), scale=3, names=["a", "b"])
    for row, one in zip(restored, pixels, strict=True):
        expected = np.array(Image.fromarray(one).resize((21, 15), Image.Resampling.BICUBIC))
        assert torch.equal(row[None], as_tensor(expected))


def test_outputs_are_looked_up_by_name_whatever_their_type(tmp_path: Path) -> None:
    outputs = {name: picture(8, 12, seed=seed) for seed, name in enumerate(("a", "b"))}
    save(tmp_path / "a.png", outputs["a"])
    save(tmp_path / "deeper" / "b.bmp", outputs["b"])
    restored = FolderRestorer(folder=tmp_path)(torch.zeros(2, 3, 4, 6), scale=2, names=["b", "a"])
    assert torch.equal(restored, torch.cat([as_tensor(outputs["b"]), as_tensor(outputs["a"])]))


def test_missing_and_mis_sized_outputs_are_named(tmp_path: Path) -> None:
    save(tmp_path / "photo_1_x4.png", picture(8, 12))
    restorer = FolderRestorer(folder=tmp_path)
    with pytest.raises(UserError, match="no output named 'photo_1'. Did you mean 'photo_1_x4'"):
        restorer(torch.zeros(1, 3, 4, 6), scale=2, names=["photo_1"])
    with pytest.raises(UserError, match="photo_1_x4.png is 12 x 8, expected 18 x 12"):
        restorer(torch.zeros(1, 3, 4, 6), scale=3, names=["photo_1_x4"])


class TwiceSmooth(nn.Module):
    """Enlarges twice by repeating pixels, then a 5 x 5 convolution with zero padding: what a pixel sees is bounded."""

    scale, tiling = 2, SimpleNamespace(name="SUPPORTED")

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 3, 5, padding=2)

    @torch.inference_mode()
    def forward(self, image: Tensor) -> Tensor:
        self.largest = max(self.largest, *image.shape[-2:])
        return self.convolution(image.repeat_interleave(2, 2).repeat_interleave(2, 3)).sigmoid()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> TwiceSmooth:
    """A model in the place of what spandrel would load."""
    found = TwiceSmooth()
    monkeypatch.setattr(spandrel_model, "_load", lambda path, device: found)
    return found


def test_tiles_give_the_whole_pictures_result(model: TwiceSmooth) -> None:
    lr = torch.rand(1, 3, 37, 50, generator=torch.Generator().manual_seed(0))
    whole = SpandrelRestorer(path=Path("m.pth"), tile=512)(lr, scale=2, names=["a"])
    assert whole.shape == (1, 3, 74, 100)
    assert model.largest == 50
    model.largest = 0
    tiled = SpandrelRestorer(path=Path("m.pth"), tile=16, overlap=2)(lr, scale=2, names=["a"])
    assert model.largest <= 16 + 2 * 2
    assert torch.allclose(tiled, whole, atol=1e-6)


def test_a_model_that_asks_not_to_be_tiled_sees_the_whole_picture(model: TwiceSmooth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwiceSmooth, "tiling", SimpleNamespace(name="INTERNAL"))
    SpandrelRestorer(path=Path("m.pth"), tile=16)(torch.zeros(1, 3, 40, 20), scale=2, names=["a"])
    assert model.largest == 40


@pytest.mark.usefixtures("model")
def test_another_scale_than_the_models_is_resized_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    restorer = SpandrelRestorer(path=Path("m.pth"))
    with caplog.at_level(logging.WARNING, logger="osediff_exp"):
        sizes = [restorer(torch.rand(1, 3, 6, 9), scale=scale, names=["a"]).shape[-2:] for scale in (4, 4, 1, 2)]
    assert sizes == [(24, 36), (24, 36), (6, 9), (12, 18)]
    assert [record.message for record in caplog.records] == [
        "m.pth enlarges 2 times; its pictures are resized to 4 times",
        "m.pth enlarges 2 times; its pictures are resized to 1 times",
    ]


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spandrel_model, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs the library spandrel.*pip install 'osediff-exp\[spandrel\]'"):
        SpandrelRestorer(path=tmp_path / "m.pth")


def random_esrgan(path: Path) -> nn.Module:
    architecture = pytest.importorskip("spandrel.architectures.ESRGAN", reason="the library spandrel is not installed (extra: spandrel)")
    torch.manual_seed(0)
    network = architecture.ESRGAN(in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4).eval()
    torch.save(network.state_dict(), path)
    return network


def test_spandrel_loads_a_model_file_and_gives_its_output(tmp_path: Path) -> None:
    network = random_esrgan(tmp_path / "random_x4.pth")
    assert parse_restorer(str(tmp_path / "random_x4.pth")) == RestorerSpec("spandrel", tmp_path / "random_x4.pth")
    lr = as_tensor(picture(12, 10))
    restorer = SpandrelRestorer(path=tmp_path / "random_x4.pth")
    assert WinogradConv2d in map(type, restorer.model.model.modules())
    restored = restorer(lr, scale=4, names=["a"])
    with torch.inference_mode():
        assert torch.allclose(restored, network(lr).clamp(0, 1), atol=1e-5)  # sums of another order, see models.winograd
    assert restored.shape == (1, 3, 48, 40)
    assert not restored.is_inference()


def test_what_spandrel_does_not_know_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("spandrel", reason="the library spandrel is not installed (extra: spandrel)")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "odd.pth")
    (tmp_path / "text.pth").write_text("no model")
    for name in ("odd.pth", "text.pth"):
        with pytest.raises(UserError, match=f"{name} is no model that spandrel can load") as caught:
            SpandrelRestorer(path=tmp_path / name)
        assert "\n" not in str(caught.value)


# ---- naming


def make_run(folder: Path, file: str = "last.ckpt") -> Path:
    path = folder / "checkpoints" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "steps_taken": 1, "backbone": {}}, path)
    return path


def test_a_paths_kind_is_told_from_its_content(tmp_path: Path) -> None:
    run, outputs, export = tmp_path / "run", tmp_path / "outputs", tmp_path / "export"
    checkpoint = make_run(run)
    save(run / "images" / "output" / "a.png", picture(8, 8))  # a run's pictures do not make it a folder of outputs
    save(outputs / "deeper" / "a.png", picture(8, 8))
    export.mkdir()
    (export / "osediff.json").write_text("{}")
    torch.save({"state_dict_unet": {}}, tmp_path / "osediff.pkl")
    torch.save({"state_dict_unet": {}}, tmp_path / "renamed.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "model.pth")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "damaged.ckpt").write_bytes(b"x")
    kinds = {
        "checkpoint": [
            run,
            run / "checkpoints",
            checkpoint,
            export,
            tmp_path / "osediff.pkl",
            tmp_path / "renamed.pth",
            tmp_path / "damaged.ckpt",
        ],
        "outputs": [outputs],
        "spandrel": [tmp_path / "model.pth", tmp_path / "model.safetensors"],
    }
    for kind, paths in kinds.items():
        assert [parse_restorer(str(path)) for path in paths] == [RestorerSpec(kind, path) for path in paths]
    assert parse_restorer("bicubic") == RestorerSpec("bicubic")


def test_a_prefix_settles_the_kind(tmp_path: Path) -> None:
    run = tmp_path / "run"
    make_run(run)
    assert parse_restorer(f"outputs:{run}") == RestorerSpec("outputs", run)
    assert parse_restorer(f"spandrel:{run}/checkpoints/last.ckpt").kind == "spandrel"
    with_colon = save(tmp_path / "12:30" / "a.png", picture(4, 4)).parent
    assert parse_restorer(str(with_colon)) == RestorerSpec("outputs", with_colon)


@pytest.mark.parametrize(
    ("entry", "hint"),
    [("bicubc", "bicubic"), ("{folder}/outptus", "outputs"), ("output:{folder}/outputs", "outputs")],
)
def test_a_mistyped_restorer_gets_the_nearest_name(tmp_path: Path, entry: str, hint: str) -> None:
    save(tmp_path / "outputs" / "a.png", picture(4, 4))
    with pytest.raises(UserError, match=f"there is no such file or folder.*Did you mean '{hint}'"):
        parse_restorer(entry.format(folder=tmp_path))


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run .*no export .*no pictures"):
        parse_restorer(str(tmp_path))


def test_labels_are_short_unique_and_fit_for_folders(tmp_path: Path) -> None:
    for sweep in ("one", "two"):
        make_run(tmp_path / sweep / "1_lambda2=1")
    step = make_run(tmp_path / "one" / "0_a", "step_5.ckpt")
    outputs = save(tmp_path / "results osediff" / "a.png", picture(4, 4)).parent
    entries = [
        (None, str(tmp_path / "one" / "1_lambda2=1" / "checkpoints" / "last.ckpt")),
        (None, str(tmp_path / "two" / "1_lambda2=1")),
        (None, str(step)),
        (None, str(outputs)),
        (None, "bicubic"),
        (None, "bicubic"),
        ("the authors' / v1", str(outputs)),
    ]
    assert list(name_restorers(entries)) == [
        "one_1_lambda2=1",
        "two_1_lambda2=1",
        "0_a_step_5",
        "results_osediff",
        "bicubic",
        "bicubic_2",
        "the_authors_v1",
    ]
