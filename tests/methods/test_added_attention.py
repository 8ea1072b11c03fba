"""Attentions added to a view: silent at first, gone when there is nothing to look at, unknown to other views."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from network_parts import make_inputs, wake
from torch import Tensor, nn

from osediff_exp.errors import UserError
from osediff_exp.methods.added_attention import AddedAttention, add_attention, attention_like, looking_at, text_attentions
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.views import share_frozen

WIDTH = 6


def followed(backbone: Backbone) -> tuple[nn.Module, list[AddedAttention]]:
    view = share_frozen(backbone.unet)
    torch.manual_seed(1)
    return view, [add_attention(place, attention_like(place.layer, width=WIDTH)) for place in text_attentions(view)]


def tokens() -> Tensor:
    return torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def predict(unet: nn.Module, backbone: Backbone) -> Tensor:
    inputs = make_inputs(backbone)
    return unet(inputs.z_t, inputs.t, inputs.text).sample


def test_text_attentions_are_found_down_middle_up(backbone: Backbone) -> None:
    channels = [place.layer.config.in_channels for place in text_attentions(backbone.unet)]
    assert channels == [8, 16, 8, 8]


def test_an_added_attention_has_the_sizes_of_the_one_before_it(backbone: Backbone) -> None:
    _, added = followed(backbone)
    for each in added:
        own, before = each.attention.config, each.layer.config
        assert (own.in_channels, own.num_attention_heads, own.num_layers) == (
            before.in_channels,
            before.num_attention_heads,
            before.num_layers,
        )
        assert own.cross_attention_dim == WIDTH


def test_it_is_silent_at_first_and_heard_when_it_has_learnt(backbone: Backbone) -> None:
    view, added = followed(backbone)
    frozen = predict(backbone.unet, backbone)
    with looking_at(added, [tokens()] * len(added)):
        assert torch.equal(predict(view, backbone), frozen)
        wake(view)
        assert not torch.allclose(predict(view, backbone), frozen, atol=1e-3)
    assert torch.equal(predict(view, backbone), frozen)  # nothing to look at: the frozen U-Net


def test_each_sample_sees_its_own_tokens(backbone: Backbone) -> None:
    view, added = followed(backbone)
    wake(view)
    first, second = tokens(), tokens()
    second[1] += 1.0
    outputs = []
    for keys in (first, second):
        with looking_at(added, [keys] * len(added)):
            outputs.append(predict(view, backbone))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert not torch.allclose(outputs[0][1], outputs[1][1], atol=1e-4)


def test_keys_are_gone_after_an_error(backbone: Backbone) -> None:
    _, added = followed(backbone)
    with pytest.raises(ZeroDivisionError), looking_at(added, [tokens()] * len(added)):
        raise ZeroDivisionError
    assert all(each.keys is None for each in added)


def test_other_views_do_not_know(backbone: Backbone) -> None:
    view, added = followed(backbone)
    assert not any(isinstance(module, AddedAttention) for module in backbone.unet.modules())
    assert view.conv_in.weight is backbone.unet.conv_in.weight
    copy = share_frozen(view)
    with torch.no_grad():
        wake(copy)
    assert not any(each.attention.proj_out.weight.any() for each in added)


def test_attentions_of_another_kind_are_the_users_mistake() -> None:
    block = SimpleNamespace(has_cross_attention=True, attentions=nn.ModuleList([nn.Identity()]))
    with pytest.raises(UserError, match="but the backbone has Identity: take another backbone"):
        text_attentions(SimpleNamespace(down_blocks=[block], mid_block=SimpleNamespace()))  # type: ignore[arg-type]
