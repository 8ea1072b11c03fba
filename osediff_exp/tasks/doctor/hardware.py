"""Devices, and whether they compute in every floating type."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from omegaconf import DictConfig

from osediff_exp.tasks.doctor.check import Check

if TYPE_CHECKING:
    from torch import Tensor

DTypeName = Literal["float32", "bfloat16", "float16"]
_PRECISIONS = {"32": "float32", "bf16": "bfloat16", "16": "float16"}
_SIDE = 32  # pixels of the picture that is restored


def devices(config: DictConfig, run_dir: Path) -> Check:
    """Which devices are there, and does the trainer ask for others?"""
    import torch

    wanted, number = config.trainer.accelerator, config.trainer.devices
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    found = ", ".join([_cpu(), *map(_gpu, range(gpus)), *["mps"] * mps])
    if wanted in ("gpu", "cuda") and not gpus and not (mps and wanted == "gpu"):
        return Check("devices", "error", f"{found}; trainer.accelerator={wanted} has no device", f"choose trainer=cpu{_gpu_remedy()}")
    if wanted in ("gpu", "cuda") and isinstance(number, int) and number > max(gpus, int(mps)):
        fitting = max(gpus, int(mps))
        return Check("devices", "error", f"{found}; trainer.devices={number} are not there", f"set trainer.devices={fitting}")
    if not gpus and shutil.which("nvidia-smi"):
        return Check("devices", "warning", f"{found}; an NVIDIA driver, but torch {torch.__version__} sees no GPU", _gpu_remedy()[2:])
    return Check("devices", "ok", found)


def cores(config: DictConfig, run_dir: Path) -> Check:
    """Are the cores free that a training's threads would have?"""
    import torch

    from osediff_exp.tasks.busy_cores import threads_too_many

    if _device(config) == "cpu" and (crowded := threads_too_many()) is not None:
        return Check("cores", "warning", crowded.found, crowded.remedy)
    return Check("cores", "ok", f"{torch.get_num_threads()} threads")


def float32(config: DictConfig, run_dir: Path) -> Check:
    """Does the embedded generator restore and learn in float32?"""
    return _computes(config, "float32")


def bfloat16(config: DictConfig, run_dir: Path) -> Check:
    """Does it in bfloat16?"""
    return _computes(config, "bfloat16")


def float16(config: DictConfig, run_dir: Path) -> Check:
    """Does it in float16?"""
    return _computes(config, "float16")


def needed_types(config: DictConfig) -> set[str]:
    """Return the floating types that the configuration computes in: of the frozen weights and of the trainer's precision."""
    precision = _PRECISIONS.get(str(config.trainer.precision).partition("-")[0], "float32")
    return {"float32", precision, str(config.backbone.loader.dtype)}


def _computes(config: DictConfig, name: DTypeName) -> Check:
    device = _device(config)
    try:
        tensors = restore_and_learn(name, device)
    except RuntimeError as error:  # torch's word for a kernel that is missing, or a device out of memory
        fault = str(error).splitlines()[0]
    else:
        fault = "" if all(bool(tensor.isfinite().all()) for tensor in tensors) else "picture or gradients are not finite"
    if not fault:
        return Check(name, "ok", f"finite picture and gradients on {device}")
    needed = name in needed_types(config)
    remedy = (
        "set trainer.precision and backbone.loader.dtype to another type" if needed else f"train and restore in another type on {device}"
    )
    return Check(name, "error" if needed else "warning", f"on {device}: {fault}", remedy)


def restore_and_learn(name: DTypeName, device: str) -> list[Tensor]:
    """Return the picture that the embedded generator restores in this type, and the gradients of its trainable parameters."""
    import torch

    from osediff_exp.models.backbone import load_backbone
    from osediff_exp.models.generator import OneStepGenerator

    backbone = load_backbone(sources=["embedded:tiny"], dtype=name).to(device)
    generator = OneStepGenerator(backbone=backbone, timestep=200).to(device)
    lq = torch.rand(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image = generator(lq.to(device), backbone.encode_prompts(["sharp"])).image
    image.square().mean().backward()
    return [image, *(parameter.grad for parameter in generator.trainable_parameters() if parameter.grad is not None)]


def _device(config: DictConfig) -> str:
    import torch

    if config.trainer.accelerator != "cpu":
        if torch.cuda.is_available():
            return "cuda"
        if torch.backends.mps.is_available():
            return "mps"
    return "cpu"


def _cpu() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    return f"cpu ({os.cpu_count()} cores, {memory:.0f} GiB)"


def _gpu(index: int) -> str:
    import torch

    free, whole = torch.cuda.mem_get_info(index)
    return f"cuda:{index} ({torch.cuda.get_device_name(index)}, {free / 2**30:.0f} of {whole / 2**30:.0f} GiB free)"


def _gpu_remedy() -> str:
    return ", or install a CUDA build of torch: pip install -c constraints/gpu.txt -e ." if shutil.which("nvidia-smi") else ""
