"""RAM's mathematics on a small network: windows, tokens, the head, LoRA, precision, preparation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from ram_parts import SHAPE, random_lora, random_weights
from torch import Tensor
from torch.nn import functional as F

from osediff_exp.models.taggers.ram.layout import build_ram, load_lora, lora_tensors
from osediff_exp.models.taggers.ram.lora import add_lora, lora_layers, lora_parameters, merge, merge_in_place, without_lora
from osediff_exp.models.taggers.ram.network import RAM, RAMOutput, prepare
from osediff_exp.models.taggers.ram.shape import RAMShape

WEIGHTS = random_weights()
X = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def ram(weights: dict[str, Tensor] = WEIGHTS, **settings: torch.dtype) -> RAM:
    return build_ram(weights, image_size=32, **settings)  # type: ignore[arg-type]


def look(network: RAM, x: Tensor = X) -> RAMOutput:
    with torch.inference_mode():
        return network(x)


def released_network(w: dict[str, Tensor], x: Tensor) -> RAMOutput:
    """RAM written down from the released layout alone, with plain matrices: an implementation apart from timm and from the head."""
    t = F.conv2d(x, w["visual_encoder.patch_embed.proj.weight"], w["visual_encoder.patch_embed.proj.bias"], stride=4).permute(0, 2, 3, 1)
    t = norm(t, w, "visual_encoder.patch_embed.norm")
    for stage, depth in enumerate(SHAPE.depths):
        for k in range(depth):
            name = f"visual_encoder.layers.{stage}.blocks.{k}"
            shift = SHAPE.window // 2 if k % 2 and t.shape[1] > SHAPE.window else 0
            t = t + window_attention(norm(t, w, f"{name}.norm1"), w, f"{name}.attn", SHAPE.num_heads[stage], shift)
            t = t + linear(F.gelu(linear(norm(t, w, f"{name}.norm2"), w, f"{name}.mlp.fc1")), w, f"{name}.mlp.fc2")
        name = f"visual_encoder.layers.{stage}.downsample"
        if f"{name}.reduction.weight" in w:
            corners = [t[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
            t = norm(torch.cat(corners, dim=-1), w, f"{name}.norm") @ w[f"{name}.reduction.weight"].T
    t = norm(t, w, "visual_encoder.norm").flatten(1, 2)
    embeds = linear(torch.cat([t.mean(1, keepdim=True), t], dim=1), w, "image_proj")
    y = F.relu(linear(w["label_embed"], w, "wordvec_proj")).expand(len(x), -1, -1)
    for k in range(SHAPE.head_layers):
        name = f"tagging_head.encoder.layer.{k}"
        y = norm(y + linear(ask(y, embeds, w, f"{name}.crossattention.self"), w, f"{name}.crossattention.output.dense"), w,
                 f"{name}.crossattention.output.LayerNorm", 1e-12)  # fmt: skip
        inner = F.gelu(linear(y, w, f"{name}.intermediate.dense"))
        y = norm(y + linear(inner, w, f"{name}.output.dense"), w, f"{name}.output.LayerNorm", 1e-12)
    return RAMOutput(linear(y, w, "fc")[..., 0], embeds)


def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(x: Tensor, w: dict[str, Tensor], name: str, epsilon: float = 1e-5) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + epsilon).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def ask(y: Tensor, embeds: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    q, k, v = (linear(z, w, f"{name}.{part}").unflatten(-1, (4, -1)) for z, part in ((y, "query"), (embeds, "key"), (embeds, "value")))
    scores = torch.einsum("bnhd,blhd->bhnl", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhnl,blhd->bnhd", scores.softmax(-1), v).flatten(2)


def window_attention(t: Tensor, w: dict[str, Tensor], name: str, heads: int, shift: int) -> Tensor:
    """Every place attends to the places of its window; shifted windows do not look across the picture's border."""
    side, width, size = t.shape[1], t.shape[3], SHAPE.window
    q, k, v = linear(t, w, f"{name}.qkv").flatten(1, 2).unflatten(-1, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
    place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).flatten(0, 1)
    rolled = (place - shift) % side
    window, apart = rolled // size, (place < shift).int()  # what was rolled over the border comes from the other side
    same = ((window[:, None] == window[None]) & (apart[:, None] == apart[None])).all(-1)
    offset = (rolled % size)[:, None] - (rolled % size)[None] + size - 1
    bias = w[f"{name}.relative_position_bias_table"][
        offset[..., 0].clamp(0, 2 * size - 2) * (2 * size - 1) + offset[..., 1].clamp(0, 2 * size - 2)
    ]
    scores = q @ k.transpose(-1, -2) / math.sqrt(width // heads) + bias.permute(2, 0, 1)
    out = scores.masked_fill(~same, -100.0 - 1e4).softmax(-1) @ v
    return linear(out.transpose(1, 2).flatten(2), w, f"{name}.proj").unflatten(1, (side, side))


def test_the_network_is_what_the_released_layout_says() -> None:
    expected, found = released_network(WEIGHTS, X), look(ram())
    assert torch.allclose(found.image_embeds, expected.image_embeds, atol=1e-4)
    assert torch.allclose(found.logits, expected.logits, atol=1e-4)
    assert found.logits.std() > 0.02


def test_the_sizes_are_read_off_the_weights() -> None:
    assert RAMShape.of(WEIGHTS, image_size=32) == SHAPE
    assert look(ram()).image_embeds.shape == (2, SHAPE.num_tokens, 12) == (2, 17, 12)


def test_pictures_of_a_batch_do_not_see_each_other() -> None:
    together, alone = look(ram()), look(ram(), X[1:])
    assert torch.allclose(together.logits[1:], alone.logits, atol=1e-5)


def test_token_0_is_the_mean_of_the_others() -> None:
    embeds = look(ram()).image_embeds  # the projection is affine
    assert torch.allclose(embeds[:, 0], embeds[:, 1:].mean(1), atol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_comes_close(dtype: torch.dtype, tolerance: float) -> None:
    exact, half = look(ram()), look(ram(dtype=dtype))
    assert half.logits.dtype == dtype
    assert (half.logits - exact.logits).abs().max() < tolerance * exact.logits.abs().max()


def test_merged_lora_is_lora_at_work_is_the_grouped_sum() -> None:
    lora = random_lora()
    merged = look(ram(merge(WEIGHTS, lora))).logits
    at_work = ram()
    add_lora(at_work)
    load_lora(at_work, lora, "the LoRA")
    assert torch.allclose(look(at_work).logits, merged, atol=1e-4)
    assert not torch.allclose(merged, look(ram()).logits, atol=1e-2)
    assert all(torch.equal(tensor, lora[name]) for name, tensor in lora_tensors(at_work).items())
    merge_in_place(at_work)
    assert not lora_layers(at_work)
    assert torch.allclose(look(at_work).logits, merged, atol=1e-4)


def test_lora_of_qkv_touches_q_and_v_in_groups_of_their_own() -> None:
    name = "visual_encoder.layers.0.blocks.0.attn.qkv"
    lora = {key: value for key, value in random_lora().items() if key.startswith(name)}
    a, b = lora[f"{name}.lora_A"], lora[f"{name}.lora_B"]
    change = (merge(WEIGHTS, lora)[f"{name}.weight"] - WEIGHTS[f"{name}.weight"]).chunk(3)
    assert torch.allclose(change[0], b[:8] @ a[:8] / 8, atol=1e-5)
    assert torch.allclose(change[1], torch.zeros(8, 8))
    assert torch.allclose(change[2], b[8:] @ a[8:] / 8, atol=1e-5)


def test_new_lora_changes_nothing_and_alone_has_gradients() -> None:
    network = ram()
    plain = look(network).logits
    add_lora(network)
    assert torch.allclose(look(network).logits, plain, atol=1e-5)
    network(X).logits.sum().backward()
    trained = {id(parameter) for parameter in lora_parameters(network)}
    assert all((parameter.grad is not None) == (id(parameter) in trained) for parameter in network.parameters())
    assert len(lora_layers(network)) == sum(SHAPE.depths) + 2 * SHAPE.head_layers


def test_the_teacher_is_the_network_without_lora() -> None:
    network = ram()
    plain = look(network).logits
    add_lora(network)
    load_lora(network, random_lora(), "the LoRA")
    with without_lora(network):
        assert torch.allclose(look(network).logits, plain, atol=1e-5)
    assert not torch.allclose(look(network).logits, plain, atol=1e-2)


def test_pictures_are_resized_as_pillow_does_and_normalised() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    resized = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR)) / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = torch.from_numpy((resized - mean) / std).permute(2, 0, 1)
    found = prepare(images, size=32)[0]
    assert (found - expected).abs().max() < 1.01 / 255 / 0.224  # Pillow rounds to 8 bit
    assert (prepare(images, size=32, antialias=False)[0] - expected).abs().max() > 0.2


def test_a_picture_of_the_right_size_is_only_normalised() -> None:
    images = torch.rand(1, 3, 32, 32)
    assert torch.allclose(prepare(images, size=32)[0, 0], (images[0, 0] - 0.485) / 0.229)
