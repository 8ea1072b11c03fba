"""What a process that computes sets up for a run: quiet libraries, global seeds as a safety net, memory that is kept, and its peak."""

from __future__ import annotations

import ctypes
import gc
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
_LINUX = Path("/proc/self")
_runs: list[bool] = []  # of this process, those begun so far: whether the peak of resident memory began anew with it


def prepare_process(*, seed: int) -> None:
    """Seed the global generator (only weight initialisation reads it), let glibc keep freed memory, and begin a run's peak of memory."""
    torch.manual_seed(seed)
    _begin_peak()
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next request, in this process and until it ends; without glibc nothing happens.

    On a CPU, torch returns every large activation to the system and faults it in again at the next step: a third of the time of a
    small network's training step was spent in the kernel before these limits were raised, and a quarter of a restored picture's.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TOP_PAD, 64 << 20)


def return_freed_memory() -> None:
    """Give the system back what :func:`keep_freed_memory` let glibc keep: a tenth of a second, and other memory's room in a large job."""
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


def _begin_peak() -> None:
    """Forget the peaks of what this process did before: the arms of a serial sweep share one process, and each has its own figures."""
    if _runs:
        gc.collect()
        return_freed_memory()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
    try:
        (_LINUX / "clear_refs").write_text("5")  # man proc_pid_clear_refs: the peak of the resident memory is what there is now
        _runs.append(True)
    except OSError:  # another system, or a sandbox that refuses it
        _runs.append(False)


def peak_memory_gib(device: str) -> float | None:
    """Return the run's largest memory so far in GiB: allocated on a CUDA ``device``, of any other what the process has resident.

    None where the system only knows the peak of the process's whole life, and this is not its first run.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 2**30
    if _runs and _runs[-1]:
        line = next(line for line in (_LINUX / "status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    if len(_runs) > 1:
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def has_bf16_instructions() -> bool:
    """Tell whether the processor has instructions for bfloat16; False where the system does not say."""
    info = Path("/proc/cpuinfo")
    flags = re.findall(r"^(?:flags|Features)\s*:(.*)$", info.read_text(), flags=re.MULTILINE)[:1] if info.is_file() else []
    return any(not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(line.split()) for line in flags)


def machine(device: str) -> str:
    """Return what computes on ``device``: the GPU's name, or processor and cores."""
    if device.startswith("cuda"):
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
