"""Views: networks that share one set of frozen weights."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

_CONSTANTS = frozenset({bool, int, float, str, type(None), torch.dtype})

_DICTS = frozenset({dict, OrderedDict})


def share_frozen(module: Module) -> Module:
    """Return a copy of the module tree that shares every frozen parameter and every buffer with the original.

    Trainable parameters are copied. The copy can be given adapters of its own, and three views of Stable Diffusion's U-Net take the
    memory of one.
    """
    shared = [parameter for parameter in module.parameters() if not parameter.requires_grad] + list(module.buffers())
    copied: Module = _copied(module, {id(tensor): tensor for tensor in shared})
    return copied


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Return ``copy.deepcopy(value, memo)``, in a third of its time: most of what a network's modules hold is constant or empty."""
    kind: Any = type(value)
    if kind in _CONSTANTS or (kind is tuple and all(type(item) in _CONSTANTS for item in value)):
        return value
    if id(value) in memo:
        return memo[id(value)]
    if kind in (list, set) and not value:
        memo[id(value)] = kind()
    elif kind in _DICTS:
        memo[id(value)] = found = kind()
        for name, item in value.items():
            found[name] = memo[id(item)] if id(item) in memo else _copied(item, memo)
    elif isinstance(value, nn.Module) and _copies_by_default(kind):
        memo[id(value)] = module = object.__new__(kind)
        fields = module.__dict__
        for name, item in value.__dict__.items():
            if name == "_compiled_call_impl":  # deepcopy leaves it out too
                continue
            if type(item) in _CONSTANTS:
                fields[name] = item
            elif type(item) in _DICTS and not item and id(item) not in memo:  # most: the hooks that a module does not have
                fields[name] = memo[id(item)] = type(item)()
            else:
                fields[name] = _copied(item, memo)
    else:
        return copy.deepcopy(value, memo)
    return memo[id(value)]


def _copies_by_default(kind: type[nn.Module]) -> bool:
    return kind.__getstate__ is nn.Module.__getstate__ and not hasattr(kind, "__deepcopy__")
