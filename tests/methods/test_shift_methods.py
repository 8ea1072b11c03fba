"""ResShift and SinSR: what trains, that runs resume, and that a picture's noise is its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from method_parts import ADAM, SHORT, batch_of, check_resuming, make_resshift, make_sinsr, train
from tiny_parts import make_generator, make_method, make_terms

from osediff_exp.checkpoints.base import Loaded
from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.checkpoints.weights_folder import write_weights_folder
from osediff_exp.errors import UserError
from osediff_exp.methods.base import Parts
from osediff_exp.methods.resshift.generator import ResShiftGenerator
from osediff_exp.methods.resshift.method import ResShift
from osediff_exp.methods.resshift.network import own_unet
from osediff_exp.methods.resshift.schedule import ShiftSchedule
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.complexity import measure_macs, measure_parameters
from osediff_exp.models.empty_backbone import empty_backbone
from osediff_exp.models.prompts import FixedPrompt
from osediff_exp.models.tiling import Tiling
from osediff_exp.restoration.restorer import Restorer

PICTURES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(8))


def restorer(backbone: Backbone, generator: Any, **settings: Any) -> Restorer:
    return Restorer(backbone=backbone, generator=generator, prompts=FixedPrompt(prompt="sharp photo"), color_fix="none", **settings)


# ---- training


def test_a_generator_samples_in_fewer_steps_for_a_while(backbone: Backbone) -> None:
    """What a validation does: never more steps than its own, and its own again afterwards, whatever happens."""
    generator = make_resshift(backbone).generator
    for most, taken in ((None, 4), (3, 3), (200, 4)):
        with generator.sampling_in_at_most(most) as steps:
            assert (steps, generator.steps) == (taken, taken)
        assert generator.steps == 4
    with pytest.raises(KeyError), generator.sampling_in_at_most(2):
        raise KeyError
    assert generator.steps == 4
    with make_sinsr(backbone).generator.sampling_in_at_most(10) as steps:
        assert steps == 1


def test_from_the_priors_weights_the_network_starts_as_the_prior(backbone: Backbone) -> None:
    """The new input channels are zero: whatever y is, the U-Net computes what the prior does without a text."""
    generator = make_resshift(backbone, from_scratch=False).generator
    z, y = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = generator.predict(z, y, 3)
        theirs = backbone.unet(ShiftSchedule(**SHORT, p=0.3, kappa=2.0).scaled(z, 3), 2, torch.zeros(1, 1, 16)).sample
    assert torch.allclose(own, theirs, atol=1e-6)


def test_the_gradient_reaches_the_u_net_and_nothing_else(backbone: Backbone, tmp_path: Path) -> None:
    for method in (make_resshift(backbone), make_sinsr(backbone)):
        method.loss(batch_of(backbone, tmp_path, method)).loss.backward()
        reached = {name.split(".")[0] for name, weight in method.generator.named_parameters() if weight.grad is not None}
        assert reached == {"unet"}
        assert all(weight.grad is None for weight in backbone.parameters())
        assert {id(weight) for weight in method.parameters() if weight.requires_grad} == {
            id(weight) for weight in method.groups()["generator"].parameters
        }


def test_resshift_s_loss_is_the_squared_error_of_z_0(backbone: Backbone, tmp_path: Path) -> None:
    method = make_resshift(backbone)
    batch = batch_of(backbone, tmp_path, method)
    z_0, y = method.generator.encode(batch.hq), method.generator.encode(batch.lq)
    method.generator.predict = lambda z_t, y, t: z_0 + 0.5  # type: ignore[method-assign]
    assert method.loss(batch).loss.item() == pytest.approx(0.25, rel=1e-5)
    assert z_0.shape == y.shape == (2, 4, 8, 8)


def test_the_student_starts_as_the_teacher_and_leaves_it_as_it_is(backbone: Backbone, tmp_path: Path) -> None:
    method = make_sinsr(backbone)
    teacher = {name: weight.clone() for name, weight in method.teacher.named_parameters()}
    assert all(torch.equal(weight, teacher[f"unet.{name}"]) for name, weight in method.generator.unet.named_parameters())
    module = train(backbone, tmp_path, method)
    assert all(torch.equal(weight, teacher[name]) for name, weight in method.teacher.named_parameters())
    assert not any(name.startswith("teacher") for name in module.state_dict())
    assert any(not torch.equal(weight, teacher[f"unet.{name}"]) for name, weight in method.generator.unet.named_parameters())
    logged = {"loss", "distillation", "inversion", "truth"}
    assert logged <= {key.removeprefix("train/") for key in module.latest if key.startswith("train/")}


def test_a_teacher_of_another_schedule_or_kind_is_the_users_mistake(backbone: Backbone) -> None:
    with pytest.raises(UserError, match=r"the teacher has ShiftSchedule\(T=15, .*, the student ShiftSchedule\(T=4, .*set generator\.T"):
        make_sinsr(backbone, make_resshift(backbone, T=15).generator)
    with pytest.raises(UserError, match=r"method\.needs\.teacher holds a OneStepGenerator, and must be a ResShiftGenerator"):
        make_sinsr(backbone, make_generator(backbone))


def test_loss_terms_and_another_generator_are_refused(backbone: Backbone) -> None:
    generator = make_resshift(backbone).generator
    for parts, message in (
        (Parts(backbone=backbone, generator=generator, terms=make_terms(backbone, "mse")), r"takes no loss/terms \(mse\)"),
        (Parts(backbone=backbone, generator=make_generator(backbone)), "trains a ResShiftGenerator, not a OneStepGenerator"),
    ):
        with pytest.raises(UserError, match=message):
            ResShift(parts, optimizer=ADAM)


@pytest.mark.parametrize("make", [make_resshift, make_sinsr])
def test_resumed_equals_uninterrupted_with_the_average(backbone: Backbone, tmp_path: Path, make: Any) -> None:
    check_resuming(backbone, tmp_path, make)


def test_in_bfloat16_the_student_that_was_asked_before_it_learns_has_its_gradients(backbone: Backbone, tmp_path: Path) -> None:
    method = make_sinsr(backbone)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method.loss(batch_of(backbone, tmp_path, method)).loss
    loss.backward()
    assert all(weight.grad is not None for weight in method.groups()["generator"].parameters)


# ---- restoring


def test_a_picture_s_noise_is_its_own(backbone: Backbone) -> None:
    """The same alone and in a batch; another name or seed is another noise, the same ones are the same bits."""
    restore = restorer(backbone, make_resshift(backbone).generator)
    both = restore(PICTURES, scale=1, names=["a", "b"])
    assert torch.equal(both, restore(PICTURES, scale=1, names=["a", "b"]))
    for k, name in enumerate(("a", "b")):
        assert torch.allclose(restore(PICTURES[k : k + 1], scale=1, names=[name]), both[k : k + 1], atol=1e-5)
    assert (restore(PICTURES[:1], scale=1, names=["c"]) - both[:1]).abs().max() > 1e-3
    other_seed = restorer(backbone, make_resshift(backbone).generator, seed=1)
    assert (other_seed(PICTURES[:1], scale=1, names=["a"]) - both[:1]).abs().max() > 1e-3


def test_tiles_see_the_whole_picture_s_noise(backbone: Backbone) -> None:
    """A network that returns its scaled z_t shows the noise: by tiles it is the same as whole."""
    generator = make_resshift(backbone).generator
    picture = torch.rand(1, 3, 48, 80, generator=torch.Generator().manual_seed(9))
    generator.unet.forward = lambda x, t, text: type("Output", (), {"sample": x[:, :4]})  # type: ignore[assignment, method-assign]
    tiled = restorer(backbone, generator, tiling=Tiling(unet_tile=16, unet_overlap=4))
    assert tiled.generator.tiling is not None
    by_tiles = tiled(picture, scale=1, names=["a"])
    whole = restorer(backbone, generator)(picture, scale=1, names=["a"])
    assert torch.allclose(by_tiles, whole, atol=1e-4)


def test_one_step_of_the_chain_is_the_network_s_z_0(backbone: Backbone) -> None:
    """The last step adds no noise and keeps nothing of z_t; ancestral and deterministic then agree."""
    n, y = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    generator = make_resshift(backbone).generator
    generator.set_sampling(steps=1)
    z_T = generator.schedule.start(y, n)
    with torch.no_grad():
        expected = generator.predict(z_T, y, 4)
        for noise in (None, lambda purpose, shape: n):
            assert torch.allclose(generator.descend(z_T, y, noise), expected, atol=1e-5)


def test_steps_are_told_and_out_of_range_ones_refused(backbone: Backbone) -> None:
    generator, told = make_resshift(backbone).generator, []
    generator.on_step = lambda done, steps: told.append((done, steps))
    restorer(backbone, generator, steps=3)(PICTURES[:1], scale=1, names=["a"])
    assert told == [(1, 3), (2, 3), (3, 3)]
    for settings, message in (({"steps": 5}, "takes 1 to 4"), ({"steps": 0}, "takes 1 to 4"), ({"guidance": 2.0}, "has no guidance")):
        with pytest.raises(UserError, match=message):
            restorer(backbone, generator, **settings)
    with pytest.raises(UserError, match=r"steps=2 is not possible: OneStepGenerator samples with steps=1 only"):
        restorer(backbone, make_method(backbone).generator, steps=2)


# ---- checkpoints, complexity


def loaded(backbone: Backbone, generator: ResShiftGenerator, source: str) -> Loaded:
    config = {
        "backbone": {"loader": {"_target_": "osediff_exp.models.backbone.load_backbone", "sources": [source]}},
        "generator": {"_target_": "osediff_exp.methods.resshift.generator.ResShiftGenerator", **SHORT},
        "prompt": {"extractor": {"_target_": "osediff_exp.models.prompts.FixedPrompt", "prompt": ""}},
    }
    return Loaded(
        backbone=backbone,
        generator=generator,
        make_prompts=lambda: FixedPrompt(prompt=""),
        config=config,
        steps=3,
        format="osediff_exp",
        fingerprint=backbone.fingerprint(),
    )


def test_exported_weights_restore_the_same(backbone: Backbone, backbone_folder: Path, tmp_path: Path) -> None:
    original = loaded(backbone, make_resshift(backbone).generator, str(backbone_folder))
    exported = write_weights_folder(original, tmp_path / "weights")
    again = load_checkpoint(tmp_path / "weights", backbone=backbone)
    assert (again.format, again.steps, exported.num_tensors) == ("weights", 3, len(original.generator.own_tensors()))
    assert all(torch.equal(again.generator.own_tensors()[name], weight) for name, weight in original.generator.own_tensors().items())
    with pytest.raises(UserError, match="use format=weights"):
        original.one_step_generator("lora")


def test_all_steps_macs_are_counted(backbone: Backbone) -> None:
    """A chain of four costs what one step costs and three times what a second adds: counted one by one it is the same."""
    generator = make_resshift(backbone).generator
    extrapolated = measure_macs(backbone, generator, size=16).merged
    assert generator.steps == 4
    generator.set_sampling(steps=2)
    two = measure_macs(backbone, generator, size=16).merged
    generator.set_sampling(steps=1)
    one = measure_macs(backbone, generator, size=16).merged
    assert two["unet"] == 2 * one["unet"]
    assert extrapolated == one | {"unet": 4 * one["unet"]}
    counted = measure_parameters(backbone, generator)
    assert counted.trainable == counted.parts["unet"] == sum(weight.numel() for weight in generator.unet.parameters())


def test_its_u_net_has_stable_diffusion_s_size() -> None:
    """Four more input channels than SD-2.1's 865.9 M; the published network, of another kind, has 118.6 M."""
    with torch.device("meta"):
        unet = own_unet(empty_backbone("sd21"), from_scratch=True)
    assert {weight.device.type for weight in unet.parameters()} == {"meta"}
    assert sum(weight.numel() for weight in unet.parameters()) == 865_910_724 + 4 * 320 * 9
