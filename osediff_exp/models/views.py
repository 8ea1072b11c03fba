"""Views: networks that share one set of frozen weights."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def share_frozen(module: Module) -> Module:
    """Return a copy of the module tree that shares every frozen parameter and every buffer with the original.

    Trainable parameters are copied. The copy can be given adapters of its own, and three views of Stable Diffusion's U-Net take the
    memory of one.
    """
    shared = [parameter for parameter in module.parameters() if not parameter.requires_grad] + list(module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in shared})
