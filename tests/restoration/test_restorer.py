"""The restorer: sizes, colours, prompts, precision and determinism around any generator."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from restoration_parts import save_checkpoint
from tiny_parts import make_generator, make_module
from torch import Tensor

from osediff_exp import Restorer
from osediff_exp.data.images import enlarge_bicubic
from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.generator import Generator, GeneratorOutput, Noise
from osediff_exp.models.prompts import FixedPrompt, PromptExtractor
from osediff_exp.models.tiling import Tiling

ROOT = Path(__file__).parents[2]


class Shift(Generator):
    """Adds a constant to the picture and remembers what it was given."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift
        self.seen: list[tuple[int, ...]] = []

    def forward(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise | None = None) -> GeneratorOutput:
        assert noise is None
        self.seen.append(tuple(lq.shape))
        return GeneratorOutput(image=lq + self.shift, latent=lq)


class Cleaning(Generator):
    """Returns a dark picture, and says that its colours should be those of a bright one."""

    def forward(self, lq: Tensor, prompt_embeds: Tensor, noise: Noise | None = None, context: Any = None) -> GeneratorOutput:
        return GeneratorOutput(image=0.1 * lq - 0.5, latent=lq, reference=0.1 * lq + 0.5)


class Recorder(PromptExtractor):
    """Returns the picture's name as its prompt and keeps what it saw."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor, names: list[str]) -> list[str]:
        self.images.append(images.clone())
        return names


def restorer(backbone: Backbone, generator: Generator | None = None, **options: Any) -> Restorer:
    parts = {"generator": generator or Shift(), "prompts": FixedPrompt(prompt="sharp photo"), "color_fix": "none", "device": "cpu"}
    return Restorer(**{"backbone": backbone} | parts | options)


def photo(height: int, width: int, *channels: int) -> Image.Image:
    """Return random pixels in 64..191, which neither shifts nor overshoots clip."""
    return Image.fromarray(np.random.default_rng(3).integers(64, 192, (height, width, *channels), dtype=np.uint8))


def bicubic(image: Image.Image, scale: int) -> np.ndarray[Any, Any]:
    return enlarge_bicubic(np.asarray(image), image.height * scale, image.width * scale)


@pytest.mark.parametrize(("height", "width", "scale"), [(1, 1, 1), (1, 1, 8), (3, 7, 1), (5, 2, 3), (8, 8, 4), (1, 50, 2)])
def test_any_size_at_any_scale(backbone: Backbone, height: int, width: int, scale: int) -> None:
    generator = Shift()
    image = photo(height, width, 3)
    restored = restorer(backbone, generator).restore(image, scale=scale)
    np.testing.assert_array_equal(np.asarray(restored), bicubic(image, scale))
    multiple = backbone.size_multiple
    assert generator.seen == [(1, 3, -(-height * scale // multiple) * multiple, -(-width * scale // multiple) * multiple)]


def test_a_tensor_is_restored_as_the_picture_is(backbone: Backbone) -> None:
    image = photo(5, 6, 3)
    pixels = torch.from_numpy(np.asarray(image) / np.float32(255)).permute(2, 0, 1)
    batch = torch.stack([pixels + 0.4 / 255, pixels - 0.4 / 255])  # rounded to 8 bit, both are the picture
    both = restorer(backbone).restore(batch, scale=3)
    expected = torch.from_numpy(bicubic(image, 3) / np.float32(255)).permute(2, 0, 1)
    torch.testing.assert_close(both, torch.stack([expected, expected]), atol=1e-6, rtol=0)
    torch.testing.assert_close(restorer(backbone)(batch, scale=3, names=["a", "b"]), both, atol=0, rtol=0)


def test_it_does_what_validation_does(backbone: Backbone) -> None:
    module = make_module(backbone).eval()
    lr = torch.from_numpy(np.asarray(photo(8, 12, 3)) / np.float32(255)).permute(2, 0, 1)[None]
    lq = torch.from_numpy(bicubic(photo(8, 12, 3), 4) / np.float32(255)).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = (module.restore(lq, ["sharp photo"]).image + 1) / 2
    assert torch.equal(restorer(backbone, module.generator, tiling=None).restore(lr), expected)


@pytest.mark.parametrize("color_fix", ["adain", "wavelet"])
def test_a_generators_colour_shift_is_removed(backbone: Backbone, color_fix: str) -> None:
    image = photo(6, 5, 3)
    restored = restorer(backbone, Shift(0.2), color_fix=color_fix).restore(image)
    np.testing.assert_array_equal(np.asarray(restored), bicubic(image, 4))


def test_small_pictures_are_restored_at_the_least_side(backbone: Backbone) -> None:
    generator = Shift()
    image = photo(5, 10, 3)
    restored = restorer(backbone, generator, min_side=64).restore(image, scale=4)
    assert generator.seen == [(1, 3, 64, 128)]
    assert restored.size == (40, 20)
    assert np.abs(np.asarray(restored).astype(int) - bicubic(image, 4)).mean() < 4
    restorer(backbone, generator, min_side=64).restore(photo(16, 20, 3), scale=4)
    assert generator.seen[1:] == [(1, 3, 64, 80)]


def test_prompts_come_from_the_enlargement_and_the_name(backbone: Backbone) -> None:
    prompts = Recorder()
    image = photo(5, 5, 3)
    restorer(backbone, prompts=prompts).restore(image, scale=1, name="castle")
    expected = torch.from_numpy(np.asarray(image) / np.float32(255)).permute(2, 0, 1)[None]
    torch.testing.assert_close(prompts.images[0], expected)


def test_a_prompt_is_encoded_once(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    encode = backbone.encode_prompts
    monkeypatch.setattr(backbone, "encode_prompts", lambda prompts: calls.append(prompts) or encode(prompts))
    own = restorer(backbone, prompts=Recorder())
    for name in ("tree", "photo", "tree"):
        own.restore(photo(2, 2, 3), name=name)
    assert calls == [["tree"], ["photo"]]


def test_twice_the_same_bits_and_no_trace(backbone: Backbone) -> None:
    own = restorer(backbone, make_generator(backbone), color_fix="adain")
    lr = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.backends.cudnn.deterministic, torch.get_float32_matmul_precision()
    first = own.restore(lr)
    torch.rand(3)
    assert torch.equal(first, own.restore(lr))
    torch.manual_seed(5)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (torch.backends.cudnn.deterministic, torch.get_float32_matmul_precision())
    (first * torch.ones(1, requires_grad=True)).sum().backward()  # no inference tensor leaves


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_bytes_give_the_same_bits_as_floats(backbone: Backbone, dtype: Any) -> None:
    """A large picture waits for its tiles as bytes; several tiles, and sides that are no multiple."""
    image, tiling = photo(31, 150, 3), Tiling(encoder_tile=128, encoder_overlap=16, decoder_tile=32, decoder_overlap=4)
    generator = make_generator(backbone)
    found = []
    for takes_bytes in (True, False):
        generator.takes_bytes = takes_bytes
        found.append(np.asarray(restorer(backbone, generator, tiling=tiling, dtype=dtype).restore(image, scale=1)))
    np.testing.assert_array_equal(*found)


def test_bfloat16_is_near(backbone: Backbone) -> None:
    exact, low = (restorer(backbone, make_generator(backbone), dtype=dtype).restore(photo(6, 6, 3)) for dtype in (None, "bfloat16"))
    difference = np.abs(np.asarray(exact).astype(int) - np.asarray(low))
    assert 0 < difference.mean() < 8


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_kinds_of_pillow_images(backbone: Backbone, mode: str, channels: int) -> None:
    image = Image.merge(mode, [photo(6, 5) for _ in range(channels)])
    restored = restorer(backbone).restore(image, scale=2)
    assert restored.mode == mode
    for channel, expected in zip(restored.split(), image.split(), strict=True):
        np.testing.assert_allclose(np.asarray(channel).astype(int), bicubic(expected, 2), atol=1)


def test_16_bit_grey_stays_16_bit(backbone: Backbone) -> None:
    restored = restorer(backbone, Shift(1e-3)).restore(Image.fromarray(np.full((2, 2), 30000, dtype=np.uint16)), scale=1)
    assert restored.mode == "I;16"
    expected = round(30000 / 257) * 257 + 65535 * 1e-3 / 2  # seen with 8 bit, written with 16
    np.testing.assert_allclose(np.asarray(restored), expected, atol=0.6)


@pytest.mark.parametrize("scale", [0, 9, 2.5, True])
def test_scales_that_are_none(backbone: Backbone, scale: Any) -> None:
    with pytest.raises(UserError, match=f"scale={scale} is not possible: give a whole number from 1 to 8"):
        restorer(backbone).restore(photo(2, 2, 3), scale=scale)


@pytest.mark.parametrize("image", [torch.rand(3, 4, 4), torch.rand(1, 1, 4, 4), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)])
def test_tensors_that_are_no_pictures(backbone: Backbone, image: Tensor) -> None:
    with pytest.raises(UserError, match="expected pictures"):
        restorer(backbone).restore(image)
    with pytest.raises(UserError, match="no pixel"):
        restorer(backbone).restore(torch.rand(1, 3, 0, 4))


def test_options_that_are_none(backbone: Backbone) -> None:
    for options, message in (
        ({"color_fix": "wavelets"}, "Did you mean 'wavelet'"),
        ({"device": "cuda:99"}, "device=cuda:99 is not on this machine: use auto or cpu"),
        ({"device": "gpu"}, "device=gpu is not on this machine"),
        ({"dtype": "float8"}, "dtype=float8 is unknown"),
        ({"min_side": -1}, "min_side=-1 is below 0"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            restorer(backbone, **options)


def test_an_output_that_is_not_finite_is_an_error(backbone: Backbone) -> None:
    with pytest.raises(UserError, match="castle: the output is not finite"):
        restorer(backbone, Shift(float("nan"))).restore(photo(2, 2, 3), name="castle")


def test_floating_point_images_are_refused(backbone: Backbone) -> None:
    with pytest.raises(UserError, match="castle cannot be restored: floating-point pixels"):
        restorer(backbone).restore(Image.new("F", (2, 2)), name="castle")


def test_the_package_offers_the_restorer_without_importing_torch() -> None:
    script = "import sys, osediff_exp; assert 'torch' not in sys.modules; assert 'Restorer' in osediff_exp.__all__"
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(ImportError, match="Restaurer"):
        from osediff_exp import Restaurer  # type: ignore[attr-defined]  # noqa: F401


@pytest.fixture
def run_folder(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> Path:
    """A run folder with a checkpoint of ours, whose generator differs from the backbone's."""
    return save_checkpoint(backbone, backbone_folder, tmp_path / "my_run", min_side=24)


def test_from_a_checkpoint(backbone: Backbone, run_folder: Path) -> None:
    generator = make_generator(backbone)
    with torch.no_grad():
        for weight in generator.trainable_parameters():
            weight.fill_(0.01)
    expected = restorer(backbone, generator, min_side=24, color_fix="adain").restore(photo(5, 7, 3))
    loaded = Restorer.from_checkpoint(run_folder, device="cpu")
    assert (loaded.min_side, loaded.color_fix) == (24, "adain")
    restored = np.asarray(loaded.restore(photo(5, 7, 3))).astype(int)
    np.testing.assert_allclose(restored, np.asarray(expected), atol=1)  # its networks are laid out for the CPU: other rounding
    assert Restorer.from_checkpoint(run_folder, min_side=0, backbone=backbone).min_side == 0


@pytest.mark.parametrize(
    ("recipe", "method", "expected"),
    [
        ({}, None, "adain"),
        ({"color_fix": "wavelet"}, {"name": "osediff", "color_fix": None}, "wavelet"),
        ({"color_fix": "wavelet"}, {"name": "stablesr", "color_fix": "adain"}, "adain"),
    ],
)
def test_the_colour_fix_is_the_methods_or_else_the_backbones(
    backbone: Backbone, backbone_folder: Path, tmp_path: Path, recipe: dict[str, str], method: dict[str, Any] | None, expected: str
) -> None:
    folder = save_checkpoint(backbone, backbone_folder, tmp_path / "run", method=method, **recipe)
    assert Restorer.from_checkpoint(folder, backbone=backbone, device="cpu").color_fix == expected
    assert Restorer.from_checkpoint(folder, backbone=backbone, device="cpu", color_fix="none").color_fix == "none"


def test_what_is_no_picture_is_one_line(backbone: Backbone) -> None:
    made = restorer(backbone, Cleaning())
    for image, line in (
        (torch.full((1, 3, 4, 4), torch.nan), r"^image: not finite \(NaN or infinity in it\): give pictures in \[0, 1\]$"),
        (torch.full((1, 3, 4, 4), torch.inf), "^image: not finite"),
        (torch.tensor(0.5), r"^expected pictures \(B, 3, H, W\) in \[0, 1\], floating point; got \(\)"),
        (np.zeros((4, 4, 3), dtype=np.uint8), r"of type ndarray: give a Pillow image .*, or a tensor \(B, 3, H, W\) in \[0, 1\]$"),
        ("photo.png", "^image cannot be restored: it is of type str: give a Pillow image"),
    ):
        with pytest.raises(UserError, match=line):
            made.restore(image)  # type: ignore[call-overload]


def test_the_examples_of_the_documentation_run(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    assert len(examples) >= 3
    photo(6, 5, 3).save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/python-api.md", "exec"), names)
    with Image.open("photo_x4.png") as written:
        assert written.size == (20, 24)


def test_colours_are_those_of_the_picture_that_the_generator_names(backbone: Backbone) -> None:
    """DiffBIR's are the cleaned picture's; here the fix brings the dark output to 0.75 on average, where the input is at 0.5."""
    lr = torch.rand(1, 3, 10, 12, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    fixed = restorer(backbone, Cleaning(), color_fix="adain").restore(lr, scale=1)
    assert fixed.mean().item() == pytest.approx(0.75, abs=0.01)
    assert fixed.std().item() == pytest.approx(0.1 * lr.std().item(), rel=0.1)
