"""RRDBNets in ncnn's form, as Real-ESRGAN's models for Vulkan are published: NAME.param lists the layers, NAME.bin has their weights.

The format: Tencent/ncnn, docs/developer-guide/param-and-model-file-structure.md and operation-param-weight-table.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

_MAGIC = "7767517"
_HALF = 0x01306B47  # the flag before weights stored as float16
_WITHOUT_WEIGHTS = frozenset({"Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp"})
_OUTPUTS, _KERNEL, _BIAS, _NUM_WEIGHTS = "0", "1", "5", "6"  # a convolution's parameters by ncnn's numbers


def read_rrdbnet(path: Path) -> dict[str, Tensor]:
    """Return the float32 weights and biases of an RRDBNet (ESRGAN, Real-ESRGAN), named as in Real-ESRGAN's own code.

    ncnn lists a network's layers in the order of their computation, which is also that of the names below.

    Args:
        path: the ``.param`` file; the ``.bin`` file lies beside it.

    Raises:
        ValueError: the files hold something else, or not all of it.
        OSError: one of them cannot be read.
    """
    layers = _layers(path.read_text(encoding="utf-8"))
    convolutions = list(_convolutions(layers, path.with_suffix(".bin").read_bytes()))
    names = _names(len(convolutions))
    return {f"{name}.{kind}": tensor for name, pair in zip(names, convolutions, strict=True) for kind, tensor in pair.items()}


def _names(num_convolutions: int) -> list[str]:
    """Return the convolutions of a x4 RRDBNet in order: 15 a block, and six before and behind (Real-ESRGAN, ``rrdbnet_arch.py``)."""
    num_blocks, rest = divmod(num_convolutions - 6, 15)
    if num_blocks < 1 or rest:
        raise ValueError(f"{num_convolutions} convolutions make no RRDBNet that enlarges 4 times")
    body = [f"body.{block}.rdb{dense}.conv{k}" for block in range(num_blocks) for dense in range(1, 4) for k in range(1, 6)]
    return ["conv_first", *body, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


def _layers(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield type and parameters of each layer: ``type name num_inputs num_outputs inputs... outputs... key=value...``."""
    lines = text.splitlines()
    if not lines or lines[0].strip() != _MAGIC:
        raise ValueError(f"a .param file starts with {_MAGIC}")
    for line in lines[2:]:
        kind, _, num_inputs, num_outputs, *rest = line.split()
        yield kind, dict(item.split("=", 1) for item in rest[int(num_inputs) + int(num_outputs) :])


def _convolutions(layers: Iterator[tuple[str, dict[str, str]]], content: bytes) -> Iterator[dict[str, Tensor]]:
    """Yield ``weight`` (outputs, inputs, k, k) and ``bias`` (outputs,) of each convolution; all of ``content`` must be used up."""
    position = 0
    for kind, parameters in layers:
        if kind in _WITHOUT_WEIGHTS:
            continue
        if kind != "Convolution" or parameters.get(_BIAS) != "1":
            raise ValueError(f"an RRDBNet has no layer {kind} {parameters}")
        outputs, kernel, num_weights = (int(parameters.get(key, "0")) for key in (_OUTPUTS, _KERNEL, _NUM_WEIGHTS))
        flag = int(np.frombuffer(content, "<u4", 1, position)[0])
        if flag != _HALF:
            raise ValueError(f"weights of storage type {flag:#010x} at byte {position}: only half precision ({_HALF:#010x}) can be read")
        weight = np.frombuffer(content, "<f2", num_weights, position + 4).reshape(outputs, -1, kernel, kernel)
        position += 4 + 2 * (num_weights + num_weights % 2)  # weights are padded to whole words; biases are float32 and have no flag
        bias = np.frombuffer(content, "<f4", outputs, position)
        position += 4 * outputs
        yield {"weight": torch.from_numpy(weight.astype(np.float32)), "bias": torch.from_numpy(bias.astype(np.float32))}
    if position != len(content):
        raise ValueError(f"the .bin file has {len(content)} bytes, the layers of the .param file take {position}")
