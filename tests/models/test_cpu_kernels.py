"""Networks made fast for a CPU's bf16 are the same networks: the same values in float32, and under bf16 as near to them as before."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_parts import make_generator, make_terms, step_inputs, wake_lora
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from osediff_exp.methods.base import Parts
from osediff_exp.methods.osediff import OSEDiff
from osediff_exp.models.attending import Attending
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.blur import BlurDownsample
from osediff_exp.models.cpu_kernels import PlanarGroupNorm, suit_cpu
from osediff_exp.models.lora_layers import plain_lora
from osediff_exp.models.perceptual import st_lpips_distance
from osediff_exp.tasks.benchmark.steps import OurStep

SGD = partial(torch.optim.SGD, lr=0.05)


@pytest.fixture
def own_backbone(backbone_folder: Path) -> Backbone:
    """One that may be changed."""
    return load_backbone(sources=[str(backbone_folder)])


def make_method(backbone: Backbone) -> OSEDiff:
    generator = make_generator(backbone)
    made = OSEDiff(Parts(backbone=backbone, generator=generator, terms=make_terms(backbone)), optimizer=SGD)
    wake_lora(made)
    return made


def gradients(method: OSEDiff, backbone: Backbone, *, mixed: bool) -> Tensor:
    method.zero_grad()
    shares = method.shares(step_inputs().batch(0, backbone.encode_prompts))
    while True:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            share = next(shares, None)
        if share is None:
            return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
        share.loss.backward()


def test_a_steps_gradients_are_those_of_float32_and_under_bf16_no_further_from_them_than_before(own_backbone: Backbone) -> None:
    method = make_method(own_backbone)
    full = gradients(method, own_backbone, mixed=False)
    with plain_lora():
        before = gradients(method, own_backbone, mixed=True)
    suit_cpu(own_backbone.unet, own_backbone.vae, method)
    assert float((gradients(method, own_backbone, mixed=False) - full).norm() / full.norm()) < 1e-4
    apart, then = (float((g - full).norm() / full.norm()) for g in (gradients(method, own_backbone, mixed=True), before))
    assert 0 < apart < 1.5 * then


def test_the_curve_under_bf16_is_the_one_of_before_within_its_rounding(backbone: Backbone, own_backbone: Backbone) -> None:
    bf16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    plain, suited = make_method(backbone), make_method(own_backbone)
    suit_cpu(own_backbone.unet, own_backbone.vae, suited)
    before, after = (OurStep(method, backbone, clip_norm=1.0, precision=bf16) for method in (plain, suited))
    for step in range(3):
        with plain_lora():
            expected = before(step_inputs(), step)
        got = after(step_inputs(), step)
        for name, loss in expected.items():
            assert float(got[name].mean()) == pytest.approx(float(loss.mean()), rel=0.02, nan_ok=True), (step, name)


def test_views_share_their_frozen_weights_as_before(own_backbone: Backbone) -> None:
    method = make_method(own_backbone)
    suit_cpu(own_backbone.unet, own_backbone.vae, method)
    shared = {p.data_ptr() for p in own_backbone.unet.parameters()}
    for network in (method.generator.unet, method.terms["vsd"].prior, method.terms["vsd"].score):  # type: ignore[union-attr]
        assert isinstance(network, nn.Module)
        frozen = [p for p in network.parameters() if not p.requires_grad]
        assert frozen
        assert all(p.data_ptr() in shared for p in frozen)
        norms = [layer for layer in network.modules() if isinstance(layer, nn.GroupNorm)]
        assert all(isinstance(layer, PlanarGroupNorm) for layer in norms)
        assert all(isinstance(processor, Attending) for processor in network.attn_processors.values())  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("shape", [(2, 8, 4, 6), (1, 8, 1, 1), (2, 8, 5)])
def test_a_planar_group_norm_is_a_group_norm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    norm, x = nn.GroupNorm(4, 8), torch.randn(shape)
    planar = nn.GroupNorm(4, 8)
    planar.load_state_dict(norm.state_dict())
    planar.__class__ = PlanarGroupNorm
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            assert torch.allclose(planar(x), norm(x), atol=1e-6)
            assert planar(x).stride() == x.stride()


def test_a_planar_group_norms_gradient_lies_as_its_map_does_and_can_be_differentiated() -> None:
    torch.manual_seed(0)
    planar = nn.GroupNorm(4, 8).double()
    planar.__class__ = PlanarGroupNorm
    x = torch.randn(2, 8, 3, 2, dtype=torch.double).contiguous(memory_format=torch.channels_last).requires_grad_()
    (dx,) = torch.autograd.grad(planar(x).square().sum(), x)
    assert dx.stride() == x.stride()
    assert gradcheck(planar, (x,))
    assert gradgradcheck(planar, (x,))


def test_the_gradient_of_the_perceptual_distance_lies_as_its_picture_does() -> None:
    distance = st_lpips_distance()
    suit_cpu(distance)
    layouts: list[bool] = []

    def watch(_: nn.Module, inputs: tuple[Tensor]) -> None:
        if inputs[0].requires_grad:
            inputs[0].register_hook(lambda dx: layouts.append(dx.is_contiguous(memory_format=torch.channels_last)))

    for layer in distance.modules():
        if isinstance(layer, nn.Conv2d) and layer.in_channels > 3:
            layer.register_forward_pre_hook(watch)
    x = torch.rand(1, 3, 64, 64).contiguous(memory_format=torch.channels_last).requires_grad_()
    distance(x, torch.rand(1, 3, 64, 64)).sum().backward()
    assert layouts
    assert all(layouts)


def test_the_perceptual_distance_blurs_in_float32() -> None:
    distance = st_lpips_distance()
    torch.manual_seed(0)
    a, b = torch.rand(2, 2, 3, 64, 64).unbind()
    full = distance(a, b)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = distance(a, b)
    suit_cpu(distance)
    blurs = [layer for layer in distance.modules() if isinstance(layer, BlurDownsample)]
    assert blurs
    assert all(layer.single_precision for layer in blurs)
    assert torch.allclose(distance(a, b), full, rtol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        after = distance(a, b)
    assert (after - full).abs().max() <= 1.5 * (before - full).abs().max()
    blur, x = BlurDownsample(3), a.bfloat16()
    blur.single_precision = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for blur.lean in (False, True):
            with torch.autocast("cpu", enabled=False):
                single = BlurDownsample(3)(x.float())
            assert torch.equal(blur(x), single.bfloat16())
            assert blur(x).dtype == torch.bfloat16


@pytest.mark.parametrize("lean", [False, True])
def test_the_gradient_of_a_blur_is_float32s_rounded_once(*, lean: bool) -> None:
    torch.manual_seed(0)
    blur, plain = BlurDownsample(3), BlurDownsample(3)
    blur.single_precision, blur.lean = True, lean
    x = torch.randn(2, 3, 9, 10).bfloat16()
    half, full = x.clone().requires_grad_(), x.float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = blur(half)
    dy = torch.randn(y.shape).bfloat16()
    (got,), (was,) = torch.autograd.grad(y, half, dy), torch.autograd.grad(plain(full), full, dy.float())
    assert torch.allclose(got.float(), was, atol=1e-3, rtol=2**-7)
