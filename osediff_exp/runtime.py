"""What a process that computes sets up once: quiet libraries, global seeds as a safety net, memory that is kept."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import re
import sys
import warnings
from pathlib import Path

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def prepare_process(*, seed: int) -> None:
    """Seed the global generator (only weight initialisation reads it) and let glibc keep freed memory.

    On a CPU, torch returns every large activation to the system and faults it in again at the next step: a third of the time of a
    small network's training step was spent in the kernel before these limits were raised.
    """
    torch.manual_seed(seed)
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TOP_PAD, 64 << 20)


def return_freed_memory() -> None:
    """Give the system back what :func:`prepare_process` let glibc keep: a tenth of a second, and other memory's room in a large job."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """Return glibc, or None where the process has another C library."""
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc


def quiet_libraries() -> None:
    """Silence chatter that tells a user of this program nothing; errors and our own messages stay."""
    lightning = ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero")
    for name in (*lightning, "diffusers", "transformers", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    for message in (
        ".*does not have many workers.*",
        ".*IterableDataset.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*litlogger.*",
        ".*You are using `torch.load` with `weights_only=False`.*",
        "Total length of `.*` across ranks is zero.*",  # no validation pictures
        ".*your dataloader is not resumable.*",  # ours goes on at its own position
        ".*module\\(s\\) in eval mode at the start of training.*",  # meant: no dropout, and nothing here has batch statistics
        "The `srun` command is available.*",
        "Detected pickle protocol .*",  # of a damaged file, whose error says more
        ".*torch.distributed.nn.functional.all_gather is deprecated.*",
        ".*Starting from v1.9.0, `tensorboardX` has been removed.*",
    ):
        warnings.filterwarnings("ignore", message=message)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of damaged files, which our own line names


def peak_memory_gib() -> float:
    """Return this process's largest resident memory so far in GiB; on a GPU machine the largest allocation on the device."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def has_bf16_instructions() -> bool:
    """Tell whether the processor has instructions for bfloat16; False where the system does not say."""
    info = Path("/proc/cpuinfo")
    flags = re.findall(r"^(?:flags|Features)\s*:(.*)$", info.read_text(), flags=re.MULTILINE)[:1] if info.is_file() else []
    return any(not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(line.split()) for line in flags)


def machine() -> str:
    """Return what computes: the GPU's name, or processor and cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
