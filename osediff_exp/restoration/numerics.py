"""Arithmetic that gives the same bits twice, for as long as pictures are restored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from osediff_exp.errors import UserError


@contextlib.contextmanager
def deterministic_numerics() -> Iterator[None]:
    """Choose cuDNN's deterministic kernels without trying them out, and no TF32; the process's own settings come back afterwards.

    On a CPU nothing needs choosing: the same number of threads gives the same bits.
    """
    precision = torch.get_float32_matmul_precision()
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False):  # type: ignore[no-untyped-call]
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; ``auto`` is the first GPU, else Apple's, else the CPU.

    Raises:
        UserError: there is no such device here.
    """
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if present[kind]))
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")  # no device's name
    if (device.index or 0) >= present.get(device.type, 0):
        here = [kind for kind, count in present.items() if count]
        raise UserError(f"device={name} is not on this machine: use auto or {' or '.join(here)}")
    return device
