"""Tiles: their geometry, what they share, that memory stays bounded, and how near they come to the untiled result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from PIL import Image
from tiny_parts import make_generator, wake_lora
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.models.miniature import edges_repeated, miniature
from osediff_exp.models.shared_attention import SharedAttention
from osediff_exp.models.shared_norms import SharedNorms
from osediff_exp.models.tiled_vae import tiled_decode
from osediff_exp.models.tiling import Span, Tiling, blend_tiles, gaussian_window, ramp_window, spans

SMALL = Tiling(encoder_tile=128, encoder_overlap=32, decoder_tile=64, decoder_overlap=12, unet_tile=48, unet_overlap=8)


def random(*shape: int, seed: int = 8) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def tiled_generator(backbone: Backbone, tiling: Tiling | None = SMALL, **settings: Any) -> OneStepGenerator:
    generator = make_generator(backbone, **settings)
    wake_lora(generator)
    generator.tiling = tiling
    return generator


# ---- geometry


@pytest.mark.parametrize(
    ("length", "tile", "overlap", "multiple"),
    [(96, 32, 8, 1), (97, 32, 8, 1), (33, 32, 16, 1), (200, 48, 22, 4), (104, 96, 32, 8), (1000, 96, 31, 8), (72, 50, 20, 8)],
)
@pytest.mark.parametrize("window", [gaussian_window, ramp_window])
def test_spans_cover_a_length_evenly(window: Callable[[int, int], Tensor], length: int, tile: int, overlap: int, multiple: int) -> None:
    found = spans(length, tile=tile, overlap=overlap, multiple=multiple, window=window)
    total = torch.zeros(length)
    for span in found:
        total[span.start : span.stop] += span.share
        assert span.start % multiple == 0
        assert span.share.min() >= 0
    assert torch.allclose(total, torch.ones(length), atol=1e-6)
    assert (found[0].start, found[-1].stop) == (0, length)
    (size,) = {span.stop - span.start for span in found}
    assert size <= tile
    assert size % multiple == 0
    assert all(a.stop - b.start >= overlap for a, b in pairwise(found))


def test_no_more_pieces_than_needed() -> None:
    assert len(spans(32, tile=32, overlap=8, window=ramp_window)) == 1
    assert len(spans(56, tile=32, overlap=8, window=ramp_window)) == 2
    assert len(spans(57, tile=32, overlap=8, window=ramp_window)) == 3


def test_the_windows_are_what_they_say() -> None:
    x = (np.arange(96) - 47.5) / 96
    assert np.allclose(gaussian_window(96, 32).numpy(), np.exp(-(x**2) / 0.02))
    ramp = ramp_window(60, 12)
    assert torch.equal(ramp[:4], torch.zeros(4, dtype=ramp.dtype))
    assert torch.equal(ramp[8:52], torch.ones(44, dtype=ramp.dtype))
    assert torch.allclose(ramp[:12] + ramp[-12:], torch.ones(12, dtype=ramp.dtype))


@pytest.mark.parametrize(("scale", "height", "width"), [(1, 70, 20), (2, 33, 90), (0.5, 64, 130)])
def test_blending_the_tiles_of_a_picture_gives_the_picture(scale: float, height: int, width: int) -> None:
    canvas = random(2, 3, height, width)
    source = nn.functional.interpolate(canvas, scale_factor=scale, mode="nearest")
    expected = nn.functional.interpolate(source, size=(height, width), mode="nearest")
    multiple = 2 if scale == 0.5 else 1
    rows, columns = (spans(n, tile=32, overlap=10, multiple=multiple, window=ramp_window) for n in (height, width))

    def call(tile: Tensor) -> Tensor:
        return nn.functional.interpolate(tile, scale_factor=1 / scale, mode="nearest")

    assert torch.allclose(blend_tiles(call, source, canvas=torch.zeros_like(canvas), rows=rows, columns=columns), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unet_tile": 0}, "unet_tile=0 .* at least 16"),
        ({"encoder_tile": 64}, "at least 128"),
        ({"unet_overlap": 60}, "0 to 48"),
        ({"decoder_overlap": -1}, "decoder_overlap=-1"),
        ({"decoder_tile": 100.5}, "whole number"),
        ({"unet_shared": 1}, "true or false"),
    ],
)
def test_impossible_tiles_are_the_users_mistake(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Tiling(**settings)


def test_pictures_of_512_px_are_one_tile() -> None:
    assert [Tiling().settled(side=512, factor=factor).unet_side for factor in (8, 4, 2)] == [96, 128, 256]
    assert Tiling().settled(side=520, factor=4).unet_side == 96
    assert Tiling(unet_tile=64).settled(side=512, factor=4).unet_side == 64


# ---- what tiles share


@pytest.mark.parametrize(("height", "width", "multiple"), [(100, 300, 8), (300, 100, 1), (1000, 40, 4), (97, 97, 1)])
def test_a_miniature_has_the_pictures_shape_and_a_tiles_area(height: int, width: int, multiple: int) -> None:
    slope = torch.linspace(0, 1, width).expand(1, 1, height, width)
    small = miniature(slope, tile=96, multiple=multiple)
    h, w = small.shape[-2:]
    assert h % multiple == w % multiple == 0
    assert 0.6 * 96**2 < h * w <= 96**2
    assert abs(h / w / (height / width) - 1) < 0.25
    assert torch.allclose(small, (torch.arange(w) + 0.5).div(w).expand_as(small), atol=0.05)


def test_a_noisy_miniature_keeps_its_noise_and_is_the_same_each_time() -> None:
    noise = random(1, 4, 96, 128) * 0
    noise.normal_(generator=torch.Generator().manual_seed(5)).mul_(0.7)
    plain, noisy = miniature(noise, tile=32, multiple=4), miniature(noise, tile=32, multiple=4, noise=0.7)
    assert plain.std() < 0.3
    assert noisy.std() == pytest.approx(0.7, rel=0.05)
    assert torch.equal(noisy, miniature(noise, tile=32, multiple=4, noise=0.7))


def test_a_picture_of_a_tiles_area_is_its_own_miniature() -> None:
    picture = random(1, 3, 32, 128)
    assert miniature(picture, tile=64, multiple=4) is picture


def test_measured_on_the_whole_picture_shared_norms_are_group_norms() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.GroupNorm(4, 8))
    nn.init.normal_(network[1].weight)
    x, norms = 3 * random(1, 3, 20, 12) + 1, SharedNorms(network)
    expected = network(x)
    with norms.measured():
        assert torch.allclose(network(x), expected, atol=1e-5)
        halves = network[1:](torch.cat(network[0](x).chunk(2, dim=3)))
    assert torch.allclose(torch.cat(halves.chunk(2), dim=3), expected, atol=1e-5)  # a batch counts as one picture
    with norms.applied():
        assert torch.allclose(network(x), expected, atol=1e-5)
        part = network[1](network[0](x)[..., 4:9])
    assert torch.allclose(part, network[1](network[0](x))[..., 4:9], atol=1e-5)  # a part is normalised as in the whole
    assert torch.equal(network(x), expected)


def test_attention_to_the_rest_of_the_picture_is_attention_to_the_whole() -> None:
    layer, x = Attention(query_dim=16, heads=2, dim_head=8), random(1, 40, 16)
    expected, shared = layer(x), SharedAttention(layer)
    with shared.measured():
        layer(x[:, 10:])
    with shared.applied(ratio=4):
        assert torch.allclose(layer(x[:, :10]), expected[:, :10], atol=1e-6)
    # A sample stands for more: here each place of the rest occurs twice, and is remembered once.
    twice = torch.cat([x[:, :10], x[:, 10:], x[:, 10:]], dim=1)
    with shared.applied(ratio=7):
        assert torch.allclose(layer(x[:, :10]), layer_untouched(layer, twice)[:, :10], atol=1e-6)
    with shared.measured():
        assert torch.allclose(layer(x.view(4, 10, 16)).flatten(0, 1)[None], expected, atol=1e-6)
    assert torch.equal(layer(x), expected)


def layer_untouched(layer: Attention, x: Tensor) -> Tensor:
    other = Attention(query_dim=16, heads=2, dim_head=8)
    other.load_state_dict(layer.state_dict())
    return other(x)


def test_an_error_leaves_the_networks_as_they_were(backbone: Backbone) -> None:
    generator = tiled_generator(backbone)
    lq, embeds = random(1, 3, 160, 16), backbone.encode_prompts(["tree"])
    expected = generator(lq, embeds).image
    with pytest.raises(RuntimeError):
        generator(lq, embeds[..., :3])
    assert torch.equal(generator(lq, embeds).image, expected)
    assert not any("forward" in vars(layer) for layer in generator.modules() if isinstance(layer, nn.GroupNorm))
    assert {layer.padding_mode for layer in generator.modules() if isinstance(layer, nn.Conv2d)} == {"zeros"}


def test_with_the_pictures_statistics_a_convolutional_decoder_is_exact_by_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=2, mid_block_add_attention=False,
                        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2)  # fmt: skip
    monkeypatch.setattr("osediff_exp.models.tiled_vae.miniature", lambda source, **_: source)
    monkeypatch.setattr("osediff_exp.models.tiled_vae.edges_repeated", lambda _: edges_as_they_are())
    z = random(2, 4, 70, 30)
    tiled = torch.cat([tiled_decode(vae, part, Tiling(decoder_tile=64, decoder_overlap=32)) for part in z.split(1)])
    assert torch.allclose(tiled, vae.decode(z).sample, atol=1e-4)


@contextmanager
def edges_as_they_are() -> Iterator[None]:
    yield


def test_repeated_edges_keep_a_constant_picture_constant() -> None:
    network = nn.Conv2d(1, 1, 3, padding=1)
    with edges_repeated(network):
        assert network(torch.ones(1, 1, 5, 5)).unique().numel() == 1
    assert network(torch.ones(1, 1, 5, 5)).unique().numel() > 1


# ---- the generator


@pytest.mark.parametrize("noise", [None, lambda purpose, shape: torch.ones(2, *shape)])
def test_a_picture_of_one_tile_takes_the_untiled_path(backbone: Backbone, noise: Any) -> None:
    lq, embeds = random(2, 3, 60, 44), backbone.encode_prompts(["tree", "sharp photo"])
    with torch.no_grad():  # as tiles are: with gradients LoRA's sums have another order
        whole, tiled = (tiled_generator(backbone, tiling)(lq, embeds, noise) for tiling in (None, SMALL))
    assert torch.equal(whole.image, tiled.image)
    assert torch.equal(whole.latent, tiled.latent)


@pytest.mark.parametrize(
    ("height", "width", "dtype"),
    [
        (132, 20, torch.float32),
        pytest.param(36, 204, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(130, 138, torch.float32, marks=pytest.mark.slow),
    ],
)
def test_any_size_is_restored_and_no_picture_depends_on_its_batch(
    backbone_folder: Path, height: int, width: int, dtype: torch.dtype
) -> None:
    backbone = load_backbone(sources=[str(backbone_folder)], dtype=str(dtype).removeprefix("torch."))  # type: ignore[arg-type]
    generator = tiled_generator(backbone)
    lq, embeds = random(2, 3, height, width), backbone.encode_prompts(["tree", "sharp photo"])
    both = generator(lq, embeds)
    assert both.image.shape == lq.shape
    assert both.image.dtype == both.latent.dtype == torch.float32
    assert both.image.abs().max() <= 1
    assert not both.image.requires_grad
    alone = generator(lq[1:], embeds[1:])
    assert torch.allclose(both.image[1:], alone.image, atol=1e-5 if dtype == torch.float32 else 0.05)
    assert torch.equal(generator(lq, embeds).image, both.image)


def test_the_networks_see_no_more_of_a_larger_picture(backbone: Backbone) -> None:
    generator, embeds = tiled_generator(backbone), backbone.encode_prompts(["tree"])
    largest = [largest_tensor(generator, random(1, 3, side, side), embeds) for side in (140, 200)]
    assert largest[0] == largest[1]
    generator.tiling = None
    assert largest_tensor(generator, random(1, 3, 200, 200), embeds) > 2 * largest[0]


def largest_tensor(generator: OneStepGenerator, lq: Tensor, embeds: Tensor) -> int:
    """Return the most elements that any layer took or gave."""
    sizes: list[int] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        sizes.extend(x.numel() for x in (*inputs, output) if isinstance(x, Tensor))

    hooks = [layer.register_forward_hook(note) for layer in generator.modules() if not list(layer.children())]
    generator(lq, embeds)
    for hook in hooks:
        hook.remove()
    return max(sizes)


# ---- against the untiled result, on the trained tiny backbone

NEAR = Tiling(encoder_tile=256, encoder_overlap=64, decoder_tile=64, decoder_overlap=16, unet_tile=64, unet_overlap=16)


@pytest.fixture(scope="module")
def whole_and_tiled() -> tuple[Tensor, Tensor]:
    """A photo 320 x 320, enlarged four times before, restored untiled and by 2 x 2 tiles; in units of 1/255."""
    backbone = load_backbone(sources=["embedded:tiny"])
    generator = OneStepGenerator(backbone=backbone, timestep=200, unet_rank=0, vae_rank=0)
    spec = find_spec("skimage")
    assert spec is not None
    assert spec.origin is not None
    photo = Image.open(Path(spec.origin).parent / "data" / "astronaut.png").convert("RGB").resize((128, 128)).crop((24, 0, 104, 80))
    lq = torch.from_numpy(np.array(photo.resize((320, 320), Image.Resampling.BICUBIC))).permute(2, 0, 1)[None] / 127.5 - 1
    pictures = []
    for tiling in (None, NEAR):
        generator.tiling = tiling
        with torch.no_grad():
            pictures.append(127.5 * generator(lq, backbone.encode_prompts(["sharp photo"])).image)
    return pictures[0], pictures[1]


def test_tiles_come_near_the_untiled_result(whole_and_tiled: tuple[Tensor, Tensor]) -> None:
    whole, tiled = whole_and_tiled
    assert (tiled - whole).abs().mean() < 2


@pytest.mark.parametrize("axis", [2, 3])
def test_no_step_where_tiles_meet(whole_and_tiled: tuple[Tensor, Tensor], axis: int) -> None:
    whole, tiled = whole_and_tiled
    latent = spans(80, tile=64, overlap=16, window=ramp_window)
    lines = seams(spans(320, tile=256, overlap=64, multiple=4, window=ramp_window), 64) + seams(latent, 16, scale=4)
    assert len(lines) >= 8
    before, after = (step_ratio(image, lines, axis) for image in (whole, tiled))
    assert after < 1.03 * before
    # A seam would show in the difference of the two above all: no step there either.
    assert step_ratio(tiled - whole, lines, axis) < 1.3


def seams(tiles: list[Span], overlap: int, scale: int = 1) -> list[int]:
    """Return the pixels where a tile begins, gains weight, has all of it, or ends."""
    return [scale * (tile.start + part * overlap // 3) for tile in tiles[1:] for part in range(4)]


def step_ratio(image: Tensor, lines: list[int], axis: int) -> float:
    """Return the mean absolute step across ``lines`` over the mean absolute step elsewhere."""
    steps = image.diff(dim=axis).abs().mean(dim=[k for k in range(4) if k != axis])
    at_line = torch.zeros(len(steps), dtype=torch.bool)
    at_line[[line - 1 for line in lines]] = True
    return float(steps[at_line].mean() / steps[~at_line].mean())
