"""StableSR and DiffBIR as methods: what trains and is kept, that runs resume, that restoring is a pure function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from method_parts import batch_of, check_resuming
from prior_method_parts import make_cleaning, make_diffbir, make_fusion, make_stablesr, wake
from tiny_parts import make_terms
from torch.nn import functional as F

from osediff_exp.diffusion import add_noise
from osediff_exp.errors import UserError
from osediff_exp.methods.base import Method, Parts
from osediff_exp.methods.chain.binding import bound, noise_in
from osediff_exp.methods.diffbir.method import diffbir
from osediff_exp.methods.diffbir.tiled_cleaning import tiled_clean
from osediff_exp.methods.noised import drawn_latents
from osediff_exp.methods.stablesr.fused_decoding import fused_decode
from osediff_exp.methods.stablesr.sharpening import unsharp_mask
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.complexity import count_sampling_macs, measure_macs, measure_parameters
from osediff_exp.models.empty_backbone import empty_like
from osediff_exp.models.generator_base import Context, Generator
from osediff_exp.models.prompts import FixedPrompt
from osediff_exp.models.tiled_unet import tiled_denoise
from osediff_exp.models.tiling import Tiling
from osediff_exp.randomness import sample_noise
from osediff_exp.restoration.colour_fix import fix_color_
from osediff_exp.restoration.restorer import Restorer

PICTURES = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(8))
MAKERS = [make_stablesr, make_fusion, make_cleaning, make_diffbir]


def restorer(backbone: Backbone, generator: Generator, **settings: Any) -> Restorer:
    extras = {"prompts": FixedPrompt(prompt="sharp photo"), "color_fix": "none", "negative_prompt": "blurry drawing"}
    return Restorer(backbone=backbone, generator=generator, **extras | settings)


# ---- training


@pytest.mark.parametrize(
    ("make", "places"),
    [
        (make_stablesr, {"network.encoder.", ".spade."}),
        (make_fusion, {".fusion."}),
        (make_cleaning, {"cleaning."}),
        (make_diffbir, {"network.control."}),
    ],
)
def test_gradients_reach_what_trains_and_nothing_else(backbone: Backbone, tmp_path: Path, make: Any, places: set[str]) -> None:
    method: Method = make(backbone)
    wake(method.generator)
    method.loss(batch_of(backbone, tmp_path, method)).loss.backward()
    for name, weight in method.generator.named_parameters():
        trains = any(place in name for place in places)
        reached = weight.grad is not None and bool(weight.grad.abs().sum() > 0)
        assert weight.requires_grad == trains, name
        assert reached == trains or name.endswith("to_k.bias"), name  # a constant on all keys changes no attention
    assert all(weight.grad is None for weight in backbone.parameters())
    grouped = [id(weight) for group in method.groups().values() for weight in group.parameters]
    assert sorted(grouped) == sorted(id(weight) for weight in method.parameters() if weight.requires_grad)


@pytest.mark.parametrize("make", MAKERS)
def test_a_checkpoint_holds_what_an_untrained_copy_needs(backbone: Backbone, tmp_path: Path, make: Any) -> None:
    """All that restoring uses and is not the backbone's: the same picture from a fresh generator with the saved tensors."""
    method: Method = make(backbone)
    wake(method.generator)
    shared = {id(weight) for weight in backbone.parameters()}
    own = method.generator.own_tensors()
    assert {id(weight) for weight in own.values()} == {id(weight) for weight in method.generator.parameters()} - shared
    assert {f"generator.{name}" for name in own} <= method.saved().keys()


@pytest.mark.parametrize("make", MAKERS)
def test_resumed_equals_uninterrupted_with_the_average(backbone: Backbone, tmp_path: Path, make: Any) -> None:
    check_resuming(backbone, tmp_path, make)


def test_at_step_0_both_diffusion_losses_are_the_prior_s(backbone: Backbone, tmp_path: Path) -> None:
    """The silent networks predict what the prior does at the batch's own t and noise."""
    for method, name in ((make_stablesr(backbone), "stablesr"), (make_diffbir(backbone), "diffbir")):
        batch = batch_of(backbone, tmp_path, method)
        sharpened = 2 * unsharp_mask((batch.hq + 1) / 2) - 1
        z0 = method.generator.encode(sharpened) if name == "stablesr" else drawn_latents(batch, method.generator)
        t = batch.timesteps(f"{name}/t", 0, 1000)
        eps = batch.noise(f"{name}/eps", tuple(z0.shape[1:]))
        prior = backbone.unet(add_noise(z0, eps, backbone.schedule.abar(t)), t, batch.prompt_embeds).sample
        torch.testing.assert_close(method.loss(batch).loss, F.mse_loss(prior, eps))


def test_the_cleaning_loss_is_the_squared_error_of_the_pictures(backbone: Backbone, tmp_path: Path) -> None:
    method = make_cleaning(backbone)
    batch = batch_of(backbone, tmp_path, method)
    torch.testing.assert_close(method.loss(batch).loss, F.mse_loss(batch.lq, batch.hq))


def test_the_condition_is_the_cleaned_picture_s_latent_or_noised_in_training(backbone: Backbone, tmp_path: Path) -> None:
    plain, noisy = make_diffbir(backbone), make_diffbir(backbone, training_augmentation=300)
    batch = batch_of(backbone, tmp_path, plain)
    clean = plain.generator.encode(plain.generator.cleaning(batch.lq).clamp(-1, 1))
    assert torch.equal(plain._condition(batch), clean)
    t = batch.timesteps("diffbir/augmentation_t", 0, 300)
    eps = batch.noise("diffbir/augmentation", tuple(clean.shape[1:]))
    torch.testing.assert_close(noisy._condition(batch), add_noise(clean, eps, backbone.schedule.abar(t)))


def test_stages_hand_their_weights_on(backbone: Backbone) -> None:
    cleaner, diffusion = make_cleaning(backbone, awake=True).generator, make_stablesr(backbone, awake=True).generator
    after, fused = make_diffbir(backbone, cleaner).generator, make_fusion(backbone, diffusion).generator
    for name, weight in cleaner.cleaning.named_parameters():
        assert torch.equal(after.cleaning.get_parameter(name), weight)
    for name, weight in diffusion.own_tensors().items():
        assert torch.equal(fused.get_parameter(name), weight)


def test_the_discriminator_waits_for_its_step(backbone: Backbone, tmp_path: Path) -> None:
    """gan_start is 2: in the first step it counts nothing, yet every weight has a gradient."""
    method = make_fusion(backbone)
    batch = batch_of(backbone, tmp_path, method)
    early = method.loss(batch)
    early.loss.backward()
    assert all(weight.grad is not None and not weight.grad.any() for weight in method.gan.critic_parameters())
    expected = early.logs["train/l1"] + early.logs["train/perceptual"]
    torch.testing.assert_close(early.logs["train/loss"], expected)
    method.gan_start = 1
    late = method.loss(batch).logs
    torch.testing.assert_close(late["train/loss"], late["train/l1"] + late["train/perceptual"] + 0.025 * late["train/gan"])


# ---- restoring


@pytest.mark.parametrize("make", MAKERS)
def test_a_picture_is_restored_the_same_alone_and_in_a_batch(backbone: Backbone, make: Any) -> None:
    method: Method = make(backbone)
    wake(method.generator)
    restore = restorer(backbone, method.generator)
    both = restore(PICTURES, scale=1, names=["a", "b"])
    assert torch.equal(both, restore(PICTURES, scale=1, names=["a", "b"]))
    for k, name in enumerate(("a", "b")):
        torch.testing.assert_close(restore(PICTURES[k : k + 1], scale=1, names=[name]), both[k : k + 1], atol=1e-4, rtol=0)
    changed = (restore(PICTURES[:1], scale=1, names=["c"]) - both[:1]).abs().max()
    assert (changed > 1e-3) == method.generator.draws_noise


def smooth(channels: int, height: int, width: int, seed: int) -> torch.Tensor:
    coarse = torch.randn(1, channels, 5, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(height, width), mode="bicubic")


TILING = Tiling(encoder_tile=128, encoder_overlap=64, decoder_tile=32, decoder_overlap=16, unet_tile=32, unet_overlap=16)


@pytest.mark.parametrize(("make", "share"), [(make_stablesr, 0.3), (make_diffbir, 0.1)])
@torch.no_grad()
def test_a_network_by_tiles_comes_near_the_whole(backbone: Backbone, make: Any, share: float) -> None:
    """Of a random network, awake, within this share of its output's spread."""
    network, text, t = make(backbone, awake=True).generator.network, backbone.encode_prompts(["sharp photo"]), torch.tensor([300])
    eps = torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(2))
    latent, seen = add_noise(smooth(4, 48, 48, 0), eps, backbone.schedule.abar(300)), smooth(4, 48, 48, 1)
    whole = bound(network, text, seen, schedule=backbone.schedule)(latent, t)
    tiled = bound(network, text, seen, schedule=backbone.schedule, tiling=TILING, multiple=2)(latent, t)
    assert float((tiled - whole).abs().mean()) < share * float(whole.std())


@pytest.mark.parametrize("t", [999, 400])
@torch.no_grad()
def test_tiles_of_a_noisy_latent_come_nearer_to_the_whole_than_each_for_itself(t: int) -> None:
    """A trained network finds its timestep's noise in the miniature too: without it the prediction is off by about half of its spread."""
    backbone = load_backbone(sources=["embedded:tiny"])
    text, times = backbone.encode_prompts(["sharp photo"]), torch.tensor([t])
    eps = torch.randn(1, 4, 48, 64, generator=torch.Generator().manual_seed(3))
    z_t = add_noise(smooth(4, 48, 64, 0), eps, backbone.schedule.abar(t))

    def network(z_t: torch.Tensor, t: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        return backbone.unet(z_t, t, embeds).sample

    def error(*, shared: bool, noise: bool) -> float:
        tiling = Tiling(unet_tile=24, unet_overlap=8, unet_shared=shared)
        stds = [noise_in(backbone.schedule, t)] if noise else []
        call = lambda embeds, z_t: network(z_t, times, embeds)  # noqa: E731
        tiled = tiled_denoise(call, text, z_t, network=backbone.unet, tiling=tiling, multiple=4, noise=stds)
        return float((tiled - network(z_t, times, text)).square().mean().sqrt())

    assert error(shared=True, noise=True) < error(shared=False, noise=False) < 0.3 * error(shared=True, noise=False)


@torch.no_grad()
def test_decoder_and_cleaning_by_tiles_come_near_the_whole(backbone: Backbone) -> None:
    fused, cleaner = make_fusion(backbone).generator, make_cleaning(backbone, awake=True).generator
    latent, picture = smooth(4, 48, 80, 0), smooth(3, 96, 160, 1).clamp(-1, 1)
    whole = fused_decode(fused.vae, latent, picture)
    tiled = fused_decode(fused.vae, latent, picture, TILING)
    assert float((tiled - whole).abs().mean()) < 0.2 * float(whole.std())
    torch.testing.assert_close(tiled_clean(cleaner.cleaning, picture, TILING), cleaner.cleaning(picture), atol=1e-4, rtol=0)


@torch.no_grad()
def test_cfw_at_w_0_restores_as_the_diffusion_model_alone(backbone: Backbone) -> None:
    diffusion = make_stablesr(backbone, awake=True).generator
    lq, text, noise = 2 * PICTURES - 1, backbone.encode_prompts(["tree"] * 2), lambda purpose, shape: torch.ones(2, *shape)
    plain = diffusion(lq, text, noise)
    fused = make_fusion(backbone, diffusion, fusion_weight=0.0).generator
    torch.testing.assert_close(fused(lq, text, noise).image, plain.image, atol=1e-3, rtol=0)
    assert not torch.allclose(fused.fuse(plain.latent, lq, w=0.5), plain.image, atol=1e-3)


def test_guidance_runs_between_both_prompts_and_1_asks_for_no_negative_one(backbone: Backbone) -> None:
    generator = make_diffbir(backbone, guidance=1.0).generator
    assert not generator.wants_negative
    lq, noise = 2 * PICTURES - 1, lambda purpose, shape: torch.ones(2, *shape)
    positive, negative = (backbone.encode_prompts([text] * 2) for text in ("sharp photo", "blurry drawing"))
    alone = generator.sample(lq, positive, noise, Context())
    generator.set_sampling(guidance=3.0)
    assert generator.wants_negative
    torch.testing.assert_close(generator.sample(lq, positive, noise, Context(negative_embeds=positive)), alone, atol=1e-4, rtol=1e-4)
    assert (generator.sample(lq, positive, noise, Context(negative_embeds=negative)) - alone).abs().max() > 1e-3


def test_restoration_guidance_pulls_the_chain_to_the_cleaned_latent(backbone: Backbone) -> None:
    lq, text = 2 * PICTURES - 1, backbone.encode_prompts(["tree"] * 2)

    def distance(scale: float) -> float:
        settings = {"restoration_scale": scale, "restoration_space": "latent", "guidance": 1.0, "steps": 2}
        generator = make_diffbir(backbone, **settings).generator
        end = generator.sample(lq, text, lambda purpose, shape: torch.ones(2, *shape), Context())
        return float((end - generator.encode(generator.clean(lq))).square().mean())

    assert distance(0.02) < 0.5 * distance(0.0)


def test_in_pixels_it_goes_through_the_decoder_inside_a_restorer_too(backbone: Backbone) -> None:
    """A small step along the gradient lowers what it is the gradient of, where no graph is kept."""
    generator = make_diffbir(backbone, restoration_scale=0.01).generator
    flat, x0 = torch.zeros(1, 3, 16, 16), 0.3 * smooth(4, 8, 8, 0)
    with torch.inference_mode():
        guided = generator.restoration.adjust(x0, torch.tensor([5]), cleaned=flat, decode=generator._decode_whole)
        before, after = (float(generator._decode_whole(z).square().mean()) for z in (x0, guided))
    assert after < before


def test_colours_come_from_the_cleaned_picture(backbone: Backbone) -> None:
    generator = make_diffbir(backbone).generator
    plain = restorer(backbone, generator)(PICTURES, scale=1, names=["a", "b"])
    fixed = restorer(backbone, generator, color_fix="wavelet")(PICTURES, scale=1, names=["a", "b"])
    rounded = PICTURES.mul(255).round().div(255)  # a restorer rounds its input to 8 bit
    cleaned = ((generator.clean(2 * rounded - 1) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(fixed, fix_color_(plain.clone(), cleaned, "wavelet"), atol=1e-5, rtol=0)
    assert (fixed - fix_color_(plain.clone(), rounded, "wavelet")).abs().max() > 1e-3


@torch.no_grad()
def test_starts_augmentation_and_samplers_change_the_result(backbone: Backbone) -> None:
    lq, text = 2 * PICTURES[:1] - 1, backbone.encode_prompts(["tree"])

    def sampled(**settings: Any) -> torch.Tensor:
        generator = make_diffbir(backbone, awake=True, guidance=1.0, **settings).generator
        return generator.sample(lq, text, lambda purpose, shape: sample_noise(0, purpose, 0, [0], shape), Context())

    plain = sampled()
    for settings in ({"start": "lr"}, {"start": "cond"}, {"augmentation": 500}, {"sampler": "ddim"}, {"sampler": "unipc"}):
        assert (sampled(**settings) - plain).abs().max() > 1e-2, settings


def test_steps_are_told(backbone: Backbone) -> None:
    for make, steps in ((make_stablesr, 3), (make_diffbir, 3), (make_cleaning, 1)):
        told: list[tuple[int, int]] = []
        generator = make(backbone).generator
        generator.on_step = lambda done, total, told=told: told.append((done, total))
        restorer(backbone, generator, steps=steps)(PICTURES[:1], scale=1, names=["a"])
        assert told == [(k, steps) for k in range(1, steps + 1)]


# ---- complexity


@pytest.mark.parametrize(("make", "passes"), [(make_stablesr, 1), (make_diffbir, 2)])
def test_all_steps_and_branches_are_counted(backbone: Backbone, make: Any, passes: int) -> None:
    generator = make(backbone).generator
    generator.set_sampling(steps=1)
    one = measure_macs(backbone, generator, size=16).merged
    generator.set_sampling(steps=5)
    five = measure_macs(backbone, generator, size=16).merged
    stepped = {"unet", "structure_encoder", "control_net"} & one.keys()
    assert all(five[part] == (5 if part in stepped else 1) * one[part] for part in one)
    if passes == 2:
        generator.set_sampling(guidance=1.0)
        assert 2 * measure_macs(backbone, generator, size=16).merged["unet"] == five["unet"]


@pytest.mark.slow
def test_several_numbers_of_steps_are_counted_at_once(backbone: Backbone) -> None:
    """On a copy without weights, in the sum of all parts; the generator samples afterwards as before."""
    generator = make_diffbir(backbone).generator
    own, expected = generator.steps, {}
    for steps in (1, 2, 7):
        generator.set_sampling(steps=steps)
        expected[steps] = sum(measure_macs(backbone, generator, size=16).unmerged.values())
    generator.set_sampling(steps=own)
    assert count_sampling_macs(backbone, generator, size=16, steps=(7, 1, 2)) == expected
    assert generator.steps == own
    empty = empty_like(backbone)
    assert {parameter.device.type for parameter in empty.parameters()} == {"meta"}
    with torch.device("meta"):
        copy = make_diffbir(empty).generator
    assert count_sampling_macs(empty, copy, size=16, steps=(7,)) == {7: expected[7]}


def test_parameters_by_part(backbone: Backbone) -> None:
    generator = make_diffbir(backbone).generator
    counted = measure_parameters(backbone, generator)
    assert counted.trainable == counted.parts["control_net"] == sum(weight.numel() for weight in generator.network.control.parameters())
    assert "other" not in counted.parts


# ---- mistakes


def test_mistakes_are_named(backbone: Backbone) -> None:
    mistakes = [
        (lambda: make_stablesr(backbone, stage="cwf"), r"method\.stage=cwf is no stage of method=stablesr"),
        (lambda: make_diffbir(backbone, stage="clean"), r"method\.stage=clean is no stage of method=diffbir"),
        (lambda: make_stablesr(backbone, sampler="dpm"), r"sampler=dpm is unknown: use ddpm, ddim, unipc"),
        (lambda: make_fusion(backbone, make_stablesr(backbone, neutral=False).generator), "was trained with generator.neutral=False"),
        (lambda: make_stablesr(backbone, sampler="unipc", steps=1000), "steps=1000"),
        (lambda: make_stablesr(backbone, start="nose"), r"start=nose is unknown.*Did you mean 'noise'"),
        (lambda: make_stablesr(backbone, guidance_scale=2.0), "guidance_scale"),
        (lambda: make_diffbir(backbone, augmentation=1000), r"generator\.augmentation=1000 is outside the backbone's timesteps, 0\.\.999"),
        (lambda: make_diffbir(backbone, training_augmentation=1001), r"method\.training\.augmentation=1001 is out of range: use 0 to 1000"),
        (lambda: make_diffbir(backbone, make_cleaning(backbone, channels=8).generator), r"set generator\.channels, growth and blocks"),
        (lambda: make_fusion(backbone, make_stablesr(backbone, width=8).generator), r"set generator\.width as that run did"),
        (lambda: make_diffbir(backbone, make_stablesr(backbone).generator), "holds a StableSRGenerator, and must be a DiffBIRGenerator"),
        (lambda: restorer(backbone, make_stablesr(backbone).generator, guidance=2.0), "StableSRGenerator has no guidance"),
    ]
    for build, message in mistakes:
        with pytest.raises((UserError, TypeError), match=message):
            build()
    parts = Parts(backbone=backbone, generator=make_cleaning(backbone).generator, terms=make_terms(backbone, "mse"))
    with pytest.raises(UserError, match=r"method=diffbir has a loss of its own and takes no loss/terms \(mse\)"):
        diffbir(parts, optimizer=torch.optim.SGD)
