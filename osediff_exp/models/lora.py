"""LoRA on the layers that OSEDiff trains, in the released code's adapters (paper, section 3.2 and released code)."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from peft import LoraConfig, LoraModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from osediff_exp.errors import UserError
from osediff_exp.models.lora_layers import MERGING_LAYERS

AlphaPolicy = Literal["fixed", "rank", "rslora"]

_UNET_LAYERS = (
    "to_q", "to_k", "to_v", "to_out.0", "conv_in", "conv1", "conv2", "conv_shortcut", "conv", "conv_out", "proj_in", "proj_out",
    "ff.net.0.proj", "ff.net.2",
)  # fmt: skip
_VAE_LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "conv_in", "conv1", "conv2", "conv_shortcut", "conv", "conv_out")


def _is_one_of(name: str, layers: tuple[str, ...]) -> bool:
    return any(name == layer or name.endswith("." + layer) for layer in layers)


def _layer_names(module: nn.Module) -> list[str]:
    return [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]


def unet_targets(unet: nn.Module) -> dict[str, list[str]]:
    """Return the U-Net's layer names per adapter: ``default_encoder`` (down blocks, conv_in), ``default_decoder`` (up blocks, conv_out)
    and ``default_others`` (the rest: the mid block). No norms, biases or time embeddings; 258 layers on SD-2.1.
    """
    adapters: dict[str, list[str]] = {"default_encoder": [], "default_decoder": [], "default_others": []}
    for name in _layer_names(unet):
        if _is_one_of(name, _UNET_LAYERS):
            adapters[_unet_adapter(name)].append(name)
    return adapters


def _unet_adapter(name: str) -> str:
    if name.startswith(("down_blocks", "conv_in")):
        return "default_encoder"
    return "default_decoder" if name.startswith(("up_blocks", "conv_out")) else "default_others"


def vae_targets(vae: nn.Module, *, encoder: bool, decoder: bool) -> dict[str, list[str]]:
    """Return the VAE's layer names per adapter: the encoder with quant_conv (32 layers on SD-2.1), the decoder with post_quant_conv."""
    parts = {
        "default_encoder": ("encoder.", "quant_conv") if encoder else (),
        "default_decoder": ("decoder.", "post_quant_conv") if decoder else (),
    }
    layers = (*_VAE_LAYERS, "quant_conv", "post_quant_conv")
    names = [name for name in _layer_names(vae) if _is_one_of(name, layers)]
    return {adapter: [name for name in names if name.startswith(prefixes)] for adapter, prefixes in parts.items() if prefixes}


def lora_scale(*, rank: int, alpha: AlphaPolicy, lora_alpha: int) -> float:
    """Return the factor on B A x: lora_alpha / r (``fixed``, as released), 1 (``rank``) or lora_alpha / sqrt(r) (``rslora``)."""
    return {"fixed": lora_alpha / rank, "rank": 1.0, "rslora": lora_alpha / rank**0.5}[alpha]


class _Injection(LoraModel):
    """PEFT's injection of one adapter, but for the passes over the whole network: :func:`add_lora` makes them once for all adapters."""

    def _mark_only_adapters_as_trainable(self, model: nn.Module) -> None:
        pass

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        pass

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: Any) -> None:
        setattr(parent, child_name, new_module)  # made with its base layer's device and type


def add_lora(module: nn.Module, targets: dict[str, list[str]], *, rank: int, alpha: AlphaPolicy, lora_alpha: int) -> None:
    """Inject LoRA adapters in place and make all of them active and trainable; nothing else changes its ``requires_grad``.

    Args:
        targets: layer names per adapter.
        rank: of every adapter; 0 adds none.
        alpha: how the scale follows the rank, see :func:`lora_scale`.
    """
    if alpha not in ("fixed", "rank", "rslora"):
        raise UserError(f"alpha={alpha} is no LoRA alpha policy: use fixed, rank or rslora")
    if rank < 0:
        raise UserError(f"a LoRA rank must not be negative, got {rank}: use 0 for no LoRA")
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    adapters = {adapter: names for adapter, names in targets.items() if names and rank > 0}
    for adapter, names in adapters.items():
        config = LoraConfig(
            r=rank,
            lora_alpha=rank if alpha == "rank" else lora_alpha,
            use_rslora=alpha == "rslora",
            init_lora_weights="gaussian",
            target_modules=names,
        )
        config._register_custom_module(MERGING_LAYERS)
        with warnings.catch_warnings():  # PEFT warns of a second adapter; several are meant here
            warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
            _Injection(module, config, adapter)
    # PEFT leaves only the last adapter active: the released training script lost two of the score network's three this way.
    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.set_adapter(list(adapters))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lora_" in name or name.replace(".base_layer", "") in trainable)
        if "lora_" in name:
            # In bfloat16 a step of 5e-5 on a weight of 0.25 is rounded away: what trains stays in float32 (PEFT casts around it).
            parameter.data = parameter.data.float()
