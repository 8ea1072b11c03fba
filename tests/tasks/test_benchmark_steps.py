"""The plain step is the same step as ours: the same losses, and the same weights after it."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from tiny_parts import make_generator, make_terms, step_inputs, trainable, wake_lora
from torch import nn

from osediff_exp.methods.base import Parts
from osediff_exp.methods.osediff import OSEDiff
from osediff_exp.models.backbone import Backbone
from osediff_exp.tasks.benchmark.side_by_side import side_by_side
from osediff_exp.tasks.benchmark.steps import OurStep, PlainStep

SGD = partial(torch.optim.SGD, lr=0.05)


@pytest.fixture
def method(backbone: Backbone) -> OSEDiff:
    made = OSEDiff(Parts(backbone=backbone, generator=make_generator(backbone), terms=make_terms(backbone)), optimizer=SGD)
    wake_lora(made)
    return made


def test_losses_and_updated_weights_are_ours_within_rounding(method: OSEDiff, backbone: Backbone) -> None:
    start, given = trainable(method), step_inputs()
    plain, ours = PlainStep(method, backbone, clip_norm=1.0), OurStep(method, backbone, clip_norm=1.0)
    for step in range(3):  # the curve, not a point of it
        expected, got = plain(given, step), ours(given, step)
        for name, loss in expected.items():
            assert got[name].item() == pytest.approx(loss.item(), rel=2e-4), (step, name)
    theirs = nn.ModuleDict({"generator": plain.generator, "terms": nn.ModuleDict(plain.terms)})
    after, wanted = trainable(method), trainable(theirs)
    assert after.keys() == wanted.keys()
    moved = torch.cat([(after[name] - start[name]).flatten() for name in after])
    apart = torch.cat([(after[name] - wanted[name]).flatten() for name in after])
    assert moved.norm() > 1e-3
    assert apart.norm() < 1e-3 * moved.norm()


def test_the_plain_step_holds_three_u_nets_and_ours_one(method: OSEDiff, backbone: Backbone) -> None:
    def storage(*networks: nn.Module) -> int:
        parameters = {p.data_ptr(): p.numel() for network in networks for p in network.parameters() if not p.requires_grad}
        return sum(parameters.values())

    plain, vsd = PlainStep(method, backbone, clip_norm=1.0), method.terms["vsd"]
    one = storage(backbone.unet)
    shared = storage(method.generator.unet, vsd.prior, vsd.score)  # type: ignore[arg-type]
    copies = storage(plain.generator.unet, plain.terms["vsd"].prior, plain.terms["vsd"].score)  # type: ignore[arg-type]
    assert shared == one
    assert copies > 2.9 * one


def test_losses_one_after_the_other_are_one_backward_pass_to_the_bit(method: OSEDiff, backbone: Backbone) -> None:
    whole = copy.deepcopy(method)
    batch = step_inputs().batch(0, backbone.encode_prompts)
    whole.loss(batch).loss.backward()
    for share in method.shares(batch):
        share.loss.backward()
    pairs = list(zip(whole.parameters(), method.parameters(), strict=True))
    assert all((a.grad is None) == (b.grad is None) for a, b in pairs)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs if a.grad is not None and b.grad is not None)
    assert sum(a.grad is not None for a, _ in pairs) > 20


def test_ways_are_measured_in_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []
    pair = side_by_side(lambda: calls.append("plain"), lambda: calls.append("ours"), rounds=2)
    assert calls == ["plain", "ours"] * 3
    assert pair.ratio > 0
