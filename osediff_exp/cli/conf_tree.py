"""Where the configuration tree is, and what lies in it."""

from __future__ import annotations

from pathlib import Path

from osediff_exp.errors import UserError

_PACKAGE = Path(__file__).resolve().parent.parent


def conf_dir(chosen: str | None = None) -> Path:
    """Return the configuration tree: the chosen folder, the copy inside an installed package, or the checkout's ``conf``."""
    if chosen is not None:
        if not (Path(chosen) / "config.yaml").is_file():
            raise UserError(f"--config-path {chosen}: there is no config.yaml in that folder; name a configuration tree")
        return Path(chosen).resolve()
    candidates = (_PACKAGE / "_conf", _PACKAGE.parent / "conf")
    found = next((path for path in candidates if (path / "config.yaml").is_file()), None)
    if found is None:
        raise UserError(f"no configuration tree at {candidates[1]}: reinstall osediff-exp, or name one with --config-path")
    return found


def options(roots: list[Path], group: str) -> list[str]:
    """Return the option names of a group over several trees, sorted; files that start with "_" are building blocks, not options."""
    return sorted({path.stem for root in roots for path in (root / group).glob("[!_]*.yaml")})


def groups(roots: list[Path]) -> list[str]:
    """Return every group (a folder with YAML files directly inside) over several trees, sorted."""
    return sorted({path.parent.relative_to(root).as_posix() for root in roots for path in root.rglob("*.yaml") if path.parent != root})


def summary(roots: list[Path], group: str, name: str) -> str:
    """Return a file's first comment line (Hydra's ``@package`` line aside), or an empty string."""
    path = next((root / group / f"{name}.yaml" for root in reversed(roots) if (root / group / f"{name}.yaml").is_file()), None)
    for line in path.read_text(encoding="utf-8").splitlines() if path else []:
        if line.strip() and not line.startswith("#"):
            break
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").strip()
    return ""
