"""How large a generator is and how much it computes: parameters and multiply-accumulates (MACs) by part."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.empty_backbone import text_inputs
from osediff_exp.models.generator_base import PARTS, Context, Generator
from osediff_exp.models.lora_layers import plain_lora

_PRODUCTS = "attention's products"


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters; each tensor counts once, however many views share it.

    Attributes:
        parts: of the networks in use, without LoRA: the generator's parts, and the text encoder.
        lora: of the generator's LoRA, by part.
        trainable: of the generator: its LoRA and what else trains (conv_in).
    """

    parts: Mapping[str, int]
    lora: Mapping[str, int]
    trainable: int

    @property
    def total(self) -> int:
        """All parameters that restoring an image uses; the score network, which only training uses, is not among them."""
        return sum(self.parts.values()) + sum(self.lora.values())


@dataclass(frozen=True)
class Macs:
    """MACs of one image and its prompt.

    Attributes:
        merged, unmerged: by part, LoRA merged into the weights or computed beside them.
        products: how many of the merged ones are attention's products of queries, keys and values. Counters that ask each layer for its
            own share pass over them.
    """

    merged: Mapping[str, int]
    unmerged: Mapping[str, int]
    products: int


def count_parameters(parameters: Iterable[nn.Parameter]) -> int:
    """Return the number of values in ``parameters``, each tensor once."""
    return sum({id(parameter): parameter.numel() for parameter in parameters}.values())


def measure_parameters(backbone: Backbone, generator: Generator) -> Parameters:
    """Count the parameters of ``generator`` and of the backbone's text encoder."""
    counts: dict[str, dict[str, int]] = {"parts": {}, "lora": {}}
    for name, parameter in generator.named_parameters():  # gives a shared tensor once
        kind, part = "lora" if "lora_" in name else "parts", _part_of(name, generator.parts)
        counts[kind][part] = counts[kind].get(part, 0) + parameter.numel()
    parts = counts["parts"] | {"text_encoder": count_parameters(backbone.text_encoder.parameters())}
    return Parameters(parts=parts, lora=counts["lora"], trainable=count_parameters(generator.trainable_parameters()))


def measure_macs(backbone: Backbone, generator: Generator, *, size: int) -> Macs:
    """Count the MACs of all steps of restoring one ``size`` x ``size`` px image (its size as output).

    Prompts have full length; under guidance there are two, and two branches. Convolutions, matrix products and attention are counted;
    norms, activations and other pointwise operations are not. On the meta device nothing is computed. The generator's LoRA is merged in
    the end.

    Raises:
        UserError: ``size`` is not a positive multiple of the backbone's.
    """
    _check_size(backbone, size)
    text, text_products = _apart(_text_macs(backbone, generator))
    with plain_lora():
        unmerged = _generator_macs(backbone, generator, size)
    adapted = [layer for layer in generator.modules() if isinstance(layer, BaseTunerLayer)]
    for layer in adapted:
        layer.merge()
    merged, products = _apart(_generator_macs(backbone, generator, size) if adapted else unmerged)
    return Macs(merged=merged | text, unmerged=_apart(unmerged)[0] | text, products=products + text_products)


def count_sampling_macs(backbone: Backbone, generator: Generator, *, size: int, steps: Iterable[int]) -> dict[int, int]:
    """Return the MACs of restoring one picture, all parts together and LoRA not merged, for each of several numbers of sampling steps.

    They are those that :func:`measure_macs` sums up, at the price of two steps whatever the numbers.

    Raises:
        UserError: as measure_macs, or the generator cannot take that many steps.
    """
    _check_size(backbone, size)
    own, text = generator.steps, sum(_apart(_text_macs(backbone, generator))[0].values())

    @cache
    def counted(few: int) -> int:
        with plain_lora():
            return sum(_apart(_counted_at(backbone, generator, size, steps=few))[0].values())

    try:
        macs = {number: counted(number) if number <= 2 else counted(1) + (number - 1) * (counted(2) - counted(1)) for number in steps}
    finally:
        generator.set_sampling(steps=own)
    return {number: count + text for number, count in macs.items()}


def count_macs(work: Callable[[], Any], named: Mapping[str, tuple[str, ...]] = PARTS) -> dict[str, int]:
    """Return the MACs of ``work`` by the part of the generator in which they are done; they sum up to all of them.

    A MAC is half of what torch's counter calls floating-point operations: a multiplication with its addition.
    """
    return _apart(_count(work, named))[0]


def _count(work: Callable[[], Any], named: Mapping[str, tuple[str, ...]] = PARTS) -> dict[str, int]:
    """Return what :func:`count_macs` does, and under :data:`_PRODUCTS` how many of them are attention's products."""
    # The counter knows attention as two matrix products; it passes over the CPU's fused kernel.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    flops = {name.partition(".")[2]: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    parts = {part: sum(flops.get(name, 0) for name in names) // 2 for part, names in named.items()}
    products = sum(count for op, count in counter.get_flop_counts()["Global"].items() if _is_product(str(op))) // 2
    return parts | {"other": counter.get_total_flops() // 2 - sum(parts.values()), _PRODUCTS: products}


def _is_product(op: str) -> bool:
    """Whether it multiplies batches of matrices, as nothing but attention does here, in whatever kernel."""
    return "bmm" in op or "attention" in op


def _apart(counted: Mapping[str, int]) -> tuple[dict[str, int], int]:
    """Return the MACs by part, and the products among them."""
    return {part: count for part, count in counted.items() if part != _PRODUCTS}, counted.get(_PRODUCTS, 0)


def _check_size(backbone: Backbone, size: int) -> None:
    multiple = backbone.size_multiple
    if size < multiple or size % multiple:
        raise UserError(f"complexity.size={size} must be a positive multiple of {multiple}, the backbone's: {_nearby(size, multiple)} fits")


def _text_macs(backbone: Backbone, generator: Generator) -> dict[str, int]:
    num_prompts = 2 if generator.wants_negative else 1
    parts, products = _apart(_count(lambda: backbone.text_encoder(text_inputs(backbone))))
    return {"text_encoder": num_prompts * sum(parts.values()), _PRODUCTS: num_prompts * products}


def _generator_macs(backbone: Backbone, generator: Generator, size: int) -> dict[str, int]:
    """Return the MACs of all steps: those of one, and for each further one what a second adds."""
    steps = generator.steps
    if steps <= 2:
        macs = _counted(backbone, generator, size)
    else:
        first, second = (_counted_at(backbone, generator, size, steps=few) for few in (1, 2))
        macs = {part: count + (steps - 1) * (second[part] - count) for part, count in first.items()}
        generator.set_sampling(steps=steps)
    return {part: count for part, count in macs.items() if count or part in generator.parts}


def _counted_at(backbone: Backbone, generator: Generator, size: int, *, steps: int) -> dict[str, int]:
    generator.set_sampling(steps=steps)
    return _counted(backbone, generator, size)


def _counted(backbone: Backbone, generator: Generator, size: int) -> dict[str, int]:
    config, device = backbone.text_encoder.config, backbone.text_encoder.device
    image = torch.zeros(1, 3, size, size, device=device)
    prompt = torch.zeros(1, config.max_position_embeddings, config.hidden_size, device=device)
    asked: dict[str, Any] = {"noise": lambda purpose, shape: torch.zeros(1, *shape, device=device)} if generator.draws_noise else {}
    if generator.wants_negative or generator.wants_image_embeds:
        embeds = torch.zeros(1, *generator.image_embeds_shape, device=device) if generator.wants_image_embeds else None
        asked["context"] = Context(negative_embeds=prompt, image_embeds=embeds)
    return _count(lambda: generator(image, prompt, **asked), generator.parts)


def _part_of(name: str, parts: Mapping[str, tuple[str, ...]]) -> str:
    return next((part for part, modules in parts.items() if name.startswith(tuple(f"{module}." for module in modules))), "other")


def _nearby(size: int, multiple: int) -> int:
    return max(1, round(size / multiple)) * multiple
