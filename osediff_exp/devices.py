"""Tensors on their way to a GPU, without a wait for what it is still computing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return ``tensor`` on ``device``; on the way from the CPU to a CUDA device neither waits for the other.

    Such a copy from ordinary memory waits for all that the device was given before; from page-locked memory it takes its place in the line
    (PyTorch keeps the page-locked copy until then).
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
