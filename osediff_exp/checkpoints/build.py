"""Build the parts that a checkpoint's configuration names, and nothing else: reading a checkpoint must not run foreign code.

Code of others is run only where the caller names its package (``packages``); what the checkpoint says of that counts for nothing.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from osediff_exp.errors import UserError
from osediff_exp.models.backbone import Backbone, load_backbone
from osediff_exp.models.generator_base import Generator
from osediff_exp.models.prompts import PromptExtractor, with_words

Part = TypeVar("Part", Generator, PromptExtractor)
_PACKAGE = __name__.partition(".")[0]
_LOADER = f"{load_backbone.__module__}.{load_backbone.__qualname__}"


def build_backbone(config: Mapping[str, Any], *, sources: list[str] | None = None) -> Backbone:
    """Load the backbone of ``config['backbone']['loader']``; ``sources`` are searched in place of its own.

    Raises:
        UserError: if the loader is another function, or no source has the weights.
    """
    target, arguments = _described(config, "backbone", "loader")
    if target != _LOADER:
        raise UserError(f"backbone.loader._target_={target} is refused: a checkpoint's backbone is loaded by {_LOADER} alone")
    return _call(load_backbone, arguments | ({} if sources is None else {"sources": sources}), "backbone.loader")


def build_generator(config: Mapping[str, Any], backbone: Backbone, *, packages: Sequence[str] = ()) -> Generator:
    """Build ``config['generator']`` on ``backbone``, its trainable tensors as initialised.

    Raises:
        UserError: if it names no generator of this package or of ``packages``, or arguments that the generator does not take.
    """
    target, arguments = _described(config, "generator")
    return _call(_known_class(target, Generator, "generator", packages), arguments | {"backbone": backbone}, "generator").eval()


def prompts_maker(config: Mapping[str, Any], *, packages: Sequence[str] = ()) -> Callable[[], PromptExtractor]:
    """Return what builds ``config['prompt']['extractor']``, or the constant prompt that ``config['prompt']['words']`` asks for.

    What code may be named is checked at once; files are read, and arguments looked at, only when it is called.

    Raises:
        UserError: if it names no prompt extractor of this package or of ``packages``.
    """
    target, arguments = _described(config, "prompt", "extractor")
    chosen: Callable[..., Any] = _known_class(target, PromptExtractor, "prompt.extractor", packages)  # type: ignore[type-abstract]
    prompt = config["prompt"]
    return lambda: with_words(
        str(prompt.get("words", "own")),  # checkpoints before this key exist
        positive=str(prompt.get("positive", "")),
        build=lambda: _call(chosen, arguments, "prompt.extractor"),
    )


def _described(config: Mapping[str, Any], *keys: str) -> tuple[str, dict[str, Any]]:
    """Return the ``_target_`` and the arguments of the description at ``keys``."""
    node: Any = config
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    where = ".".join(keys)
    if not isinstance(node, Mapping) or not isinstance(node.get("_target_"), str):
        raise UserError(f"the checkpoint's configuration has no {where}._target_: give settings that describe the {keys[0]}")
    arguments = {str(name): value for name, value in node.items() if name not in ("_target_", "_partial_", "_convert_", "_recursive_")}
    if nested := next((name for name, value in arguments.items() if _names_code(value)), None):
        raise UserError(f"{where}.{nested} names code of its own (_target_), which a checkpoint may not: give plain values")
    return node["_target_"], arguments


def _names_code(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" in value or any(map(_names_code, value.values()))
    return isinstance(value, list | tuple) and any(map(_names_code, value))


def _known_class(target: str, kind: type[Part], where: str, packages: Sequence[str]) -> type[Part]:
    """Return the class called ``target`` if it is a concrete ``kind`` of this package or of one of ``packages``; no other is imported."""
    module, _, name = target.rpartition(".")
    trusted = [root for root in (_PACKAGE, *packages) if _is_inside(module, root)]
    if not trusted and "." in target:
        root = target.partition(".")[0]
        raise UserError(
            f"{where}._target_={target} is refused: it is of the package '{root}', and a checkpoint alone runs no code of others: "
            f"add packages=[{root}] if you trust it"
        )
    found: Any = getattr(_imported(module, where, target), name, None) if trusted and "__" not in target else None
    # Only what lies where it is said to lie may be named: an imported name could lead out of the package.
    inside = inspect.isclass(found) and (found.__module__ == module or any(_is_inside(found.__module__, root) for root in packages))
    if not inside or not issubclass(found, kind) or inspect.isabstract(found):
        raise UserError(
            f"{where}._target_={target} is refused: it is no {kind.__name__} of this version of {trusted[0] if trusted else _PACKAGE}"
        )
    return found


def _is_inside(module: str, root: str) -> bool:
    return module == root or module.startswith(f"{root}.")


def _imported(module: str, where: str, target: str) -> Any:
    """Return a module of a package that may run; None where this package has none of that name (any more)."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if _is_inside(module, _PACKAGE):
            return None
        raise UserError(
            f"{where}._target_={target}: {module} cannot be imported ({error}): install it, or put its folder on PYTHONPATH"
        ) from error


def _call(function: Callable[..., Any], arguments: dict[str, Any], where: str) -> Any:
    """Call with keyword arguments; those that do not fit are the checkpoint's fault and one clear line."""
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise UserError(f"the configuration's {where} does not fit this version of {_PACKAGE}: {error}") from error
    return function(**arguments)
