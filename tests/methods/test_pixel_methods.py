"""SeeSR and PASD: what a training step computes, that runs resume, and that a picture's restoration is its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from method_parts import ADAM, train
from network_parts import wake
from pixel_parts import TOKENS, Seen, context_of, make_pasd, make_seesr, noise_of, restore
from tiny_parts import largest_difference, make_data, make_generator, make_module, make_terms, trainable
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.callbacks.checkpoint import LastCheckpoint
from osediff_exp.callbacks.ema import GeneratorEMA
from osediff_exp.diffusion import add_noise
from osediff_exp.errors import UserError
from osediff_exp.methods.base import Method, Parts
from osediff_exp.methods.batch import TrainingBatch
from osediff_exp.methods.noised import Noised
from osediff_exp.methods.pasd.generator import PASDGenerator
from osediff_exp.methods.pasd.method import PASD
from osediff_exp.methods.seesr.generator import SeeSRGenerator
from osediff_exp.methods.seesr.method import SeeSR
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.complexity import count_macs, measure_parameters
from osediff_exp.models.tiling import Tiling

Make = Callable[..., Any]
BOTH = pytest.mark.parametrize("make", [make_seesr, make_pasd])
PICTURES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(8)) * 2 - 1


def batch_of(backbone: Backbone, folder: Path, method: Method) -> TrainingBatch:
    module = make_module(backbone, method=method, prompts=Seen())
    data = make_data(folder / "photos", batch_size=2)
    data.setup("fit")
    return module._training_batch(next(iter(data.train_dataloader())))


# ---- training


@BOTH
def test_the_noise_is_what_is_predicted(backbone: Backbone, tmp_path: Path, make: Make) -> None:
    """Untrained, the network is the frozen U-Net: the loss is that U-Net's error at z_t."""
    method = make(backbone, training={"text_dropout": 0.0} | ({"removal_weight": 0.0} if make is make_pasd else {}))
    batch = batch_of(backbone, tmp_path, method)
    noised = Noised.of(batch, method.generator, text_dropout=0.0)
    z_t = add_noise(noised.z0, noised.eps, backbone.schedule.abar(noised.t))
    with torch.no_grad():
        expected = F.mse_loss(backbone.unet(z_t, noised.t, batch.prompt_embeds).sample, noised.eps)
    assert method.loss(batch).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_clean_latents_are_drawn_from_the_posterior_of_the_ground_truth(backbone: Backbone, tmp_path: Path) -> None:
    method = make_pasd(backbone)
    batch = batch_of(backbone, tmp_path, method)
    noised = Noised.of(batch, method.generator, text_dropout=0.0)
    posterior = backbone.vae.encode(batch.hq).latent_dist
    n = (noised.z0 / backbone.scaling_factor - posterior.mean) / posterior.std
    assert torch.allclose(n, batch.noise("chain/posterior", tuple(n.shape[1:])), atol=1e-3)
    assert not torch.allclose(n, noised.eps, atol=0.1)


@pytest.mark.parametrize(("probability", "text"), [(0.0, "sharp photo"), (1.0, "")])
def test_who_loses_the_words_reads_the_empty_prompt(backbone: Backbone, tmp_path: Path, probability: float, text: str) -> None:
    method = make_seesr(backbone)
    batch = batch_of(backbone, tmp_path, method)
    assert torch.equal(Noised.of(batch, method.generator, text_dropout=probability).text, backbone.encode_prompts([text] * 2))


def test_degradation_removal_is_a_summand(backbone: Backbone, tmp_path: Path) -> None:
    parts = []
    for weight in (0.0, 1.0, 3.0):
        method = make_pasd(backbone, training={"removal_weight": weight})
        parts.append(method.loss(batch_of(backbone, tmp_path, method)).logs)
    assert parts[0]["train/loss"] == parts[0]["train/denoising"]
    for weight, logs in zip((0.0, 1.0, 3.0), parts, strict=True):
        expected = parts[0]["train/denoising"] + weight * parts[0]["train/degradation_removal"]
        assert float(logs["train/loss"]) == pytest.approx(float(expected), rel=1e-5)


@BOTH
def test_one_group_holds_all_that_trains_and_gradients_reach_it_alone(backbone: Backbone, tmp_path: Path, make: Make) -> None:
    method = make(backbone)
    wake(method)
    method.loss(batch_of(backbone, tmp_path, method)).loss.backward()
    (group,) = method.groups().values()
    assert {id(parameter) for parameter in group.parameters} == {id(p) for p in method.parameters() if p.requires_grad}
    assert all(bool(parameter.grad.any()) for parameter in group.parameters if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in group.parameters)
    assert all(parameter.grad is None for parameter in backbone.parameters())


@BOTH
def test_resumed_equals_uninterrupted_with_the_average(backbone: Backbone, tmp_path: Path, make: Make) -> None:
    def arm(folder: Path, max_steps: int, ckpt_path: str | None = None) -> tuple[Any, GeneratorEMA]:
        ema = GeneratorEMA(decay=0.9)
        callbacks = [LastCheckpoint(every=1), ema]
        settings: dict[str, Any] = {"max_steps": max_steps, "callbacks": callbacks, "ckpt_path": ckpt_path, "prompts": Seen()}
        return train(backbone, folder, make(backbone), **settings), ema

    whole, whole_ema = arm(tmp_path / "whole", 2)
    arm(tmp_path / "parts", 1)
    resumed, resumed_ema = arm(tmp_path / "parts", 2, str(tmp_path / "parts" / "checkpoints" / "last.ckpt"))
    assert largest_difference(trainable(whole), trainable(resumed)) == 0
    assert largest_difference(whole_ema.average, resumed_ema.average) == 0
    assert largest_difference(trainable(whole), trainable(make(backbone))) > 1e-4


@pytest.mark.parametrize(("make", "kind"), [(make_seesr, SeeSR), (make_pasd, PASD)])
def test_what_does_not_belong_is_the_users_mistake(backbone: Backbone, make: Make, kind: type[Method]) -> None:
    generator = make(backbone).generator
    name = type(generator).__name__
    for parts, message in (
        (Parts(backbone=backbone, generator=generator, terms=make_terms(backbone, "mse")), r"takes no loss/terms \(mse\)"),
        (Parts(backbone=backbone, generator=make_generator(backbone)), f"trains a {name}, not a OneStepGenerator"),
    ):
        with pytest.raises(UserError, match=message):
            kind(parts, optimizer=ADAM)
    with pytest.raises(UserError, match=r"method\.training\.text_dropout=1\.5 must lie in 0\.\.1"):
        make(backbone, training={"text_dropout": 1.5})
    with pytest.raises(UserError, match="start=middle is unknown"):
        make(backbone, start="middle")
    with pytest.raises(UserError, match="start=cond needs a method that makes a condition latent"):
        make(backbone, start="cond")
    with pytest.raises(UserError, match="steps=1000 is not possible"):
        make(backbone, steps=1000)


def test_each_ones_own_mistakes(backbone: Backbone) -> None:
    with pytest.raises(UserError, match=r"choose prompt=tagged or prompt=ram"):
        make_seesr(backbone, image_embeds_shape=None)
    with pytest.raises(UserError, match="spacing=middle is unknown"):
        restore(backbone, make_seesr(backbone, spacing="middle").generator, PICTURES, ["a", "b"])
    with pytest.raises(UserError, match=r"generator\.noised_again=1000 is outside the backbone's 0\.\.999"):
        make_pasd(backbone, noised_again=1000)
    with pytest.raises(UserError, match=r"removal_weight=-1 must not be negative"):
        make_pasd(backbone, training={"removal_weight": -1})


# ---- where a chain starts


def started(generator: SeeSRGenerator | PASDGenerator, z: Tensor) -> Tensor:
    return generator.started(z, noise_of(["a", "b"]))


def test_seesr_starts_at_the_low_quality_latent_noised_to_the_last_timestep(backbone: Backbone) -> None:
    z = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    n = noise_of(["a", "b"])("start", (4, 8, 12))
    abar = backbone.schedule.abar(999)
    assert torch.allclose(started(make_seesr(backbone).generator, z), abar.sqrt().float() * z + (1 - abar).sqrt().float() * n)
    assert torch.equal(started(make_seesr(backbone, start="noise").generator, z), n)


def test_pasd_noises_twice_and_so_keeps_the_product(backbone: Backbone) -> None:
    z = torch.randn(2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    abar = backbone.schedule.abar
    kept = started(make_pasd(backbone).generator, z) - started(make_pasd(backbone).generator, torch.zeros_like(z))
    assert torch.allclose(kept, (abar(999) * abar(900)).sqrt().float() * z, atol=1e-6)
    assert float((abar(999) * abar(900)).sqrt()) == pytest.approx(0.008, abs=5e-4)  # the same schedule as Stable Diffusion's
    once = started(make_pasd(backbone, noised_again=None).generator, z)
    assert torch.allclose(once, started(make_seesr(backbone).generator, z))


# ---- restoring


@BOTH
def test_a_pictures_restoration_is_its_own(backbone: Backbone, make: Make) -> None:
    """The same alone and in a batch; another name is another noise, the same one gives the same bits."""
    generator = make(backbone).generator
    wake(generator)
    both = restore(backbone, generator, PICTURES, ["a", "b"]).image
    assert torch.equal(both, restore(backbone, generator, PICTURES, ["a", "b"]).image)
    for k, name in enumerate(("a", "b")):
        assert torch.allclose(restore(backbone, generator, PICTURES[k : k + 1], [name]).image, both[k : k + 1], atol=1e-5)
    assert (restore(backbone, generator, PICTURES[:1], ["c"]).image - both[:1]).abs().max() > 1e-3


@BOTH
def test_guidance_goes_from_the_negative_prompt_to_the_prompt(backbone: Backbone, make: Make) -> None:
    """In one step the latent is linear in the prediction, and this in the guidance; guidance 1 needs no second branch."""
    generator = make(backbone, steps=1).generator
    wake(generator)
    latents = []
    for guidance in (0.0, 1.0, 3.0):
        generator.set_sampling(guidance=guidance)
        assert generator.wants_negative is (guidance != 1)
        latents.append(restore(backbone, generator, PICTURES, ["a", "b"]).latent)
    assert torch.allclose(latents[2], latents[0] + 3 * (latents[1] - latents[0]), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(latents[0], latents[1], atol=1e-2)


@BOTH
@pytest.mark.parametrize("shared", [False, True])
def test_by_tiles_each_picture_keeps_its_own_and_one_tile_is_the_whole(backbone: Backbone, make: Make, shared: bool) -> None:
    generator = make(backbone, steps=1).generator
    pictures = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(9)) * 2 - 1
    tiling = Tiling(unet_tile=16, unet_overlap=4, unet_shared=shared)
    wake(generator)
    generator.tiling = tiling
    both = restore(backbone, generator, pictures, ["a", "b"]).image
    assert torch.allclose(restore(backbone, generator, pictures[1:], ["b"]).image, both[1:], atol=1e-5)
    if not shared:
        generator.tiling = Tiling()  # one tile
        by_one_tile = restore(backbone, generator, pictures[1:], ["b"]).image
        generator.tiling = None
        assert torch.allclose(by_one_tile, restore(backbone, generator, pictures[1:], ["b"]).image, atol=1e-5)


@BOTH
def test_steps_are_told(backbone: Backbone, make: Make) -> None:
    generator, told = make(backbone).generator, []
    generator.on_step = lambda done, steps: told.append((done, steps))
    generator.set_sampling(steps=3)
    restore(backbone, generator, PICTURES[:1], ["a"])
    assert told == [(1, 3), (2, 3), (3, 3)]


@BOTH
def test_guidance_costs_a_second_branch_and_pixels_are_embedded_once(backbone: Backbone, make: Make) -> None:
    generator, counts = make(backbone, steps=1).generator, []
    for guidance in (2.0, 1.0):
        generator.set_sampling(guidance=guidance)
        counts.append(count_macs(lambda: restore(backbone, generator, PICTURES[:1], ["a"]), generator.parts))
    embedding = sum(count_macs(lambda: generator.network.embed(PICTURES[:1])).values())
    assert counts[0]["unet"] == 2 * counts[1]["unet"]
    assert counts[0]["vae_encoder"] == counts[1]["vae_encoder"]
    assert counts[0]["control_net"] - embedding == 2 * (counts[1]["control_net"] - embedding)


@BOTH
def test_parameters_are_told_apart(backbone: Backbone, make: Make) -> None:
    generator = make(backbone).generator
    counted = measure_parameters(backbone, generator)
    assert counted.trainable == sum(parameter.numel() for parameter in generator.own_tensors().values())
    assert set(counted.parts) == {"vae_encoder", "unet", "control_net", "vae_decoder", "text_encoder"}


def test_the_tokens_that_are_announced_are_those_that_fit(backbone: Backbone) -> None:
    generator = make_seesr(backbone).generator
    assert generator.wants_image_embeds
    assert generator.image_embeds_shape == TOKENS == tuple(context_of(backbone, PICTURES).image_embeds.shape[1:])
