"""Layers that keep less for the backward pass are the same layers: in float32 to the bit, but for the order of sums."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.vae import Decoder
from diffusers.models.resnet import ResnetBlock2D
from tiny_parts import make_generator, make_terms, step_inputs, wake_lora
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.graph import saved_tensors_hooks

from osediff_exp.methods.base import Parts
from osediff_exp.methods.osediff import OSEDiff
from osediff_exp.models import lean_layers as module
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.blur import BlurDownsample
from osediff_exp.models.layouts import group_norm
from osediff_exp.models.lean_layers import LeanConv2d, LeanResnetBlock, lean_layers, norm_silu
from osediff_exp.models.rounded_weights import LARGEST, rounded


@pytest.fixture(autouse=True)
def _small_maps_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORTH", 0)


@pytest.fixture
def own_backbone(backbone_folder: Path) -> Backbone:
    """One that may be changed."""
    return load_backbone(sources=[str(backbone_folder)])


def block(*, temb: int | None = 6, channels_last: bool = False, **settings: object) -> ResnetBlock2D:
    torch.manual_seed(0)
    made = ResnetBlock2D(in_channels=8, out_channels=12, temb_channels=temb, groups=4, **settings)  # type: ignore[arg-type]
    return made.to(memory_format=torch.channels_last) if channels_last else made


def lean(network: nn.Module) -> nn.Module:
    made = copy.deepcopy(network)
    lean_layers(made)
    return made


def pulled(network: nn.Module, x: Tensor, *more: Tensor) -> list[Tensor]:
    """Return the output for ``x`` and the gradients of a sum over it: of ``x`` and of every parameter that trains."""
    x = x.detach().requires_grad_()
    y = network(x, *more)
    weights = torch.linspace(-1, 1, y.numel()).view(y.shape)
    return [y.detach(), *torch.autograd.grad((y * weights).sum(), [x, *(p for p in network.parameters() if p.requires_grad)])]


def kept(network: nn.Module, x: Tensor) -> int:
    """Return how many bytes the graph of ``network(x)`` keeps beside its parameters."""
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}
    found: dict[int, tuple[int, Tensor]] = {}  # the tensor too, so that no other gets its place

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        network(x.detach().requires_grad_())
    return sum(size for size, _ in found.values())


def test_a_steps_gradients_are_the_same(own_backbone: Backbone) -> None:
    generator = make_generator(own_backbone)
    method = OSEDiff(Parts(backbone=own_backbone, generator=generator, terms=make_terms(own_backbone)), optimizer=torch.optim.SGD)  # type: ignore[arg-type]
    wake_lora(method)

    def gradients() -> Tensor:
        method.zero_grad()
        for share in method.shares(step_inputs().batch(0, own_backbone.encode_prompts)):
            share.loss.backward()
        return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])

    before = gradients()
    lean_layers(own_backbone.unet, own_backbone.vae, method)
    assert any(isinstance(layer, LeanConv2d) for layer in method.generator.modules())
    assert any(isinstance(layer, LeanResnetBlock) for layer in method.generator.modules())
    assert float((gradients() - before).norm() / before.norm()) < 5e-6  # the order of sums


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_block_is_the_same_with_trained_and_with_frozen_weights(*, frozen: bool, channels_last: bool) -> None:
    plain = block(channels_last=channels_last).requires_grad_(not frozen)
    x, temb = torch.randn(2, 8, 6, 4), torch.randn(2, 6)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = pulled(block().requires_grad_(not frozen), x.contiguous(), temb)
    for got, was in zip(pulled(lean(plain), x, temb), expected, strict=True):
        assert torch.allclose(got, was, atol=1e-5) if channels_last else torch.equal(got, was)
    with torch.no_grad():
        assert torch.allclose(lean(plain)(x, temb), plain(x, temb), atol=1e-6)


def test_under_autocast_gradients_come_in_the_precision_of_what_they_are_of() -> None:
    x, temb = torch.randn(2, 8, 6, 4), torch.randn(2, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, was = (pulled(network.requires_grad_(False), x, temb) for network in (lean(block()), block()))
    assert got[1].dtype == torch.float32
    assert torch.equal(got[0], was[0])
    assert torch.allclose(got[1], was[1], atol=0.02, rtol=0.02)


def test_a_frozen_decoder_keeps_half() -> None:
    network = Decoder(
        up_block_types=("UpDecoderBlock2D",) * 2, block_out_channels=(8, 16), norm_num_groups=4, mid_block_add_attention=False
    ).requires_grad_(False)
    x = torch.randn(2, 3, 16, 16)
    leaner = lean(network)
    assert all(type(layer) is LeanResnetBlock for layer in leaner.modules() if isinstance(layer, ResnetBlock2D))
    assert kept(leaner, x) < 0.5 * kept(network, x)
    assert all(torch.equal(got, was) for got, was in zip(pulled(leaner, x), pulled(network, x), strict=True))


def test_what_is_differentiated_twice_is_right_twice() -> None:
    network = block(temb=None).double()
    x = torch.randn(1, 8, 3, 3, dtype=torch.double, requires_grad=True)
    assert gradcheck(lambda x: norm_silu(network.norm1, x), (x,))
    assert gradgradcheck(lambda x: norm_silu(network.norm1, x), (x,))
    frozen = lean(network.requires_grad_(False))
    assert gradcheck(frozen.conv1, (x,))
    assert gradgradcheck(frozen.conv1, (x,))


@pytest.mark.parametrize(("size", "stride"), [(2, 1), (3, 1), (1, 1), (3, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_pooling_keeps_no_places(size: int, stride: int, layout: torch.memory_format) -> None:
    pool, x = nn.MaxPool2d(size, stride=stride), torch.randn(2, 4, 9, 7).round(decimals=1).to(memory_format=layout)  # with equal neighbours
    got, was = pulled(lean(pool), x), pulled(pool, x)
    assert torch.equal(got[0], was[0])
    assert torch.equal(lean(pool)(x), pool(x))
    assert torch.allclose(got[1], was[1], atol=1e-6)  # the sum's order alone
    assert torch.equal(got[1] == 0, was[1] == 0)
    assert kept(lean(pool), x) == x.untyped_storage().nbytes() < kept(pool, x)
    x = torch.randn(1, 2, 5, 5, dtype=torch.double, requires_grad=True)
    assert gradcheck(lean(pool), (x,))
    assert gradgradcheck(lean(pool), (x,))


def test_a_maximum_that_is_not_a_number_is_seen() -> None:
    pool, x = lean(nn.MaxPool2d(3, stride=1)), torch.randn(1, 1, 4, 4)
    x[..., 1, 2] = float("nan")
    assert pool(x).isnan().all()
    assert pool(x.requires_grad_()).isnan().all()


def test_pooling_that_returns_places_stays() -> None:
    assert isinstance(lean(nn.MaxPool2d(2, return_indices=True))(torch.randn(1, 1, 4, 4)), tuple)


@pytest.mark.parametrize("places", [(3, 4), (32, 32)])
def test_a_norm_is_the_same_in_whichever_layout_it_is_computed(places: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x, norm = torch.randn(2, 8, *places), nn.GroupNorm(4, 8)
    for layout in (torch.contiguous_format, torch.channels_last):
        found = group_norm(x.contiguous(memory_format=layout), norm.weight, norm.bias, 4, norm.eps)
        assert torch.allclose(found, norm(x), atol=1e-6)
        assert found.is_contiguous(memory_format=layout)


def test_frozen_weights_are_rounded_once_and_again_when_they_change() -> None:
    torch.manual_seed(0)
    network = lean(nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.Linear(12, 2))).requires_grad_(False)
    x = torch.randn(2, 2, 2, 2)
    plain = copy.deepcopy(network)
    for layer in (plain[0], plain[2]):
        layer.__class__ = type(layer).__bases__[0]  # type: ignore[assignment]
    weight = network[0].weight
    assert rounded(weight) is weight
    assert torch.equal(network(x), plain(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = rounded(weight)
        assert first.dtype == torch.bfloat16
        assert torch.equal(network(x), plain(x))
        assert rounded(weight) is first
        for layer in (network[0], plain[0]):
            layer.weight.add_(1.0)
        assert torch.equal(network(x), plain(x))
        assert torch.equal(rounded(weight), weight.bfloat16())
        weight.requires_grad_(True)
        assert rounded(weight) is weight
    with torch.autocast("cpu", dtype=torch.float16):
        assert rounded(weight.requires_grad_(False)).dtype == torch.float16
        assert rounded(torch.empty(LARGEST + 1)).dtype == torch.float32
    file = io.BytesIO()
    torch.save(weight, file)  # the copy is an attribute of the weight
    file.seek(0)
    assert torch.load(file).equal(weight)


def test_small_maps_are_kept_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = nn.Conv2d(8, 4, 3).requires_grad_(False), torch.randn(2, 8, 6, 4)
    less = kept(lean(network), x)
    monkeypatch.setattr(module, "WORTH", x.numel() + 1)
    assert kept(lean(network), x) == kept(network, x) > less


def test_other_layers_stay_what_they_are() -> None:
    blocks = block(up=True), block(dropout=0.5), block(time_embedding_norm="scale_shift"), block(output_scale_factor=2.0)
    for other in blocks:
        assert type(lean(other)) is ResnetBlock2D
    mirrored = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect").requires_grad_(False)
    same = nn.Conv2d(3, 3, 3, padding="same", dilation=2).requires_grad_(False)
    for layer in (mirrored, same):
        x = torch.randn(1, 3, 7, 5)
        assert all(torch.equal(a, b) for a, b in zip(pulled(lean(layer), x), pulled(layer, x), strict=True))


@pytest.mark.parametrize("size", [(7, 9), (8, 10), (3, 4)])
def test_a_blur_that_keeps_nothing_has_the_gradient_of_one_that_does(size: tuple[int, int]) -> None:
    plain = BlurDownsample(3)
    blur, x = lean(plain), torch.randn(2, 3, *size)
    for got, was in zip(pulled(blur, x), pulled(plain, x), strict=True):
        assert torch.allclose(got, was, atol=1e-6)
    assert kept(blur, x) == plain.filt.untyped_storage().nbytes() < kept(plain, x)
