"""Do dotted paths (``_target_``, ``task.function``) name something that is defined? Files are read, nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osediff_exp.errors import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def target_paths(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (full key, dotted path) of every ``_target_`` in nested dictionaries and lists."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        key = f"{prefix}{name}"
        if name == "_target_" and isinstance(value, str):
            yield key, value
        yield from target_paths(value, f"{key}.")


def foreign_problem(path: str, allowed: Sequence[str]) -> str | None:
    """Return what is wrong with a path that leads outside the packages or modules ``allowed``, or None.

    Code of others runs only where the user has named its package. A module that one of ours imports (``osediff_exp.x.subprocess.run``) is
    as foreign as by its own name.
    """
    names = path.split(".")
    inside = any(names[: len(root)] == root for root in (name.split(".") for name in allowed))
    if inside and not _through_an_import(names):
        return None
    return f"'{path}', which lies in none of {', '.join(allowed)}: if you trust it, name its package, packages=[{names[0]}]"


def _through_an_import(names: list[str]) -> bool:
    """Tell whether the path goes through something that a module of this package has only imported."""
    if names[0] != "osediff_exp":
        return False
    spec = importlib.util.find_spec(names[0])
    assert spec is not None
    assert spec.submodule_search_locations
    file, rest = Path(next(iter(spec.submodule_search_locations))), names[1:]
    while rest and (file / rest[0]).is_dir():
        file, rest = file / rest[0], rest[1:]
    if len(rest) < 2 or not (file / f"{rest[0]}.py").is_file():
        return False  # a package's __init__ re-exports what is ours
    return rest[1] in _imported(file / f"{rest[0]}.py")


@cache
def _imported(file: Path) -> set[str]:
    body = _statements(ast.parse(file.read_bytes()).body)
    return {name for statement in body if isinstance(statement, ast.Import | ast.ImportFrom) for name in _names(statement)}


@cache
def target_problem(path: str) -> str | None:
    """Return what is wrong with a dotted path to a class or function, or None (also where files alone cannot tell)."""
    names = path.split(".")
    if not all(name.isidentifier() for name in names) or len(names) < 2:
        return f"'{path}' is not a dotted path like package.module.Name"
    spec = importlib.util.find_spec(names[0])
    if spec is None:
        return f"'{path}': the package '{names[0]}' is not installed"
    folder = Path(next(iter(spec.submodule_search_locations))) if spec.submodule_search_locations else None
    return _walk(path, names[0], names[1:], folder, Path(spec.origin) if spec.origin else None)


def _walk(path: str, done: str, names: list[str], folder: Path | None, file: Path | None) -> str | None:
    """Follow ``names`` down the package's folders as far as modules go, then look into the module's file."""
    if folder is not None and (folder / names[0]).is_dir() and len(names) > 1:
        package = folder / names[0]
        return _walk(path, f"{done}.{names[0]}", names[1:], package, package / "__init__.py")
    if folder is not None and (folder / f"{names[0]}.py").is_file() and len(names) > 1:
        return _walk(path, f"{done}.{names[0]}", names[1:], None, folder / f"{names[0]}.py")
    defined = _defined(file)
    if defined is None or names[0] in defined:
        return None
    if len(names) > 1 and folder is not None:
        return f"'{path}': {done} has no module '{names[0]}'.{nearest(names[0], _modules(folder))}"
    return f"'{path}': {done} defines no '{names[0]}'.{nearest(names[0], sorted(defined))}"


def _modules(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())


def _defined(file: Path | None) -> set[str] | None:
    """Return a module's top-level names; None where reading cannot tell (compiled, star imports, names made at run time).

    A module that makes names at run time and lists what it offers in ``__all__`` is taken at its word.
    """
    if file is None or file.suffix != ".py":
        return None
    names: set[str] = set()
    for statement in _statements(ast.parse(file.read_bytes()).body if file.is_file() else []):
        found = _names(statement)
        if "*" in found:
            return None
        names |= found | (_listed(statement) if "__all__" in found else set())
    return None if "__getattr__" in names and "__all__" not in names else names


def _listed(statement: ast.stmt) -> set[str]:
    """Return the texts in ``__all__ = [...]``."""
    return {node.value for node in ast.walk(statement) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        for field in ("body", "orelse", "finalbody"):
            if isinstance(statement, ast.If | ast.Try | ast.With):
                yield from _statements(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from _statements(handler.body)


def _names(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target] if isinstance(statement, ast.AnnAssign) else []
    # `sys.modules[__name__] = ...` is how lazy packages replace themselves: their names are not in the file.
    if any(isinstance(target, ast.Subscript) and "sys.modules" in ast.unparse(target) for target in targets):
        return {"*"}
    return {target.id for target in targets if isinstance(target, ast.Name)}
