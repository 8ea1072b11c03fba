"""Python, packages and checkout."""

from __future__ import annotations

import platform
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from omegaconf import DictConfig

from osediff_exp import __version__
from osediff_exp.tasks.doctor.check import Check

DISTRIBUTION = "osediff-exp"
ROOT = Path(__file__).resolve().parents[3]
OLDEST_PYTHON = (3, 11)
_SHOWN = ("torch", "pytorch-lightning", "torchmetrics", "diffusers", "transformers", "peft", "hydra-core", "wandb", "numpy")
_NEED_PYIQA = ("fid", "musiq", "maniqa", "clipiqa")


def python(config: DictConfig, run_dir: Path) -> Check:
    """Is the interpreter new enough?"""
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Check(
            "python", "error", found, "install Python 3.11 or newer and make the environment again (make run VENV=.venv PYTHON=...)"
        )
    return Check("python", "ok", found)


def packages(config: DictConfig, run_dir: Path) -> Check:
    """Is every required package there, in a version that pyproject.toml allows?"""
    problems = [problem for requirement, extra in requirements() if not extra and (problem := problem_of(requirement))]
    if problems:
        return Check("packages", "error", "; ".join(problems), "pip install -c constraints/cpu.txt -e . (with a GPU: constraints/gpu.txt)")
    return Check("packages", "ok", ", ".join(f"{name} {metadata.version(name)}" for name in _SHOWN))


def extras(config: DictConfig, run_dir: Path) -> Check:
    """Are the optional packages there? pyiqa is needed where the configuration names a metric that it computes."""
    missing: dict[str, list[str]] = {}
    for requirement, extra in requirements():
        if extra not in ("", "dev") and not requirement.startswith(DISTRIBUTION) and (problem := problem_of(requirement)):
            missing.setdefault(extra, []).append(problem)
    wanted = [name for name in _NEED_PYIQA if config.get("metrics", {}).get(name) is not None]
    if wanted and problem_of("pyiqa"):
        return Check("extras", "error", f"pyiqa is missing; the metrics {', '.join(wanted)} need it", f"pip install {DISTRIBUTION}[iqa]")
    if missing:
        detail = "; ".join(f"{extra}: {', '.join(problems)}" for extra, problems in missing.items())
        return Check("extras", "warning", detail, f"where you want them: pip install {DISTRIBUTION}[{','.join(missing)}]")
    return Check("extras", "ok", "every optional package is installed")


def checkout(config: DictConfig, run_dir: Path) -> Check:
    """Which code runs?"""
    if not (ROOT / ".git").exists():
        return Check("checkout", "ok", f"installed package {__version__}, no git checkout")
    commit, changed = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "--", "osediff_exp", "conf")
    if changed:
        number = len(changed.splitlines())
        return Check(
            "checkout", "warning", f"commit {commit} with {number} changed files", "commit before runs whose figures are to be repeated"
        )
    return Check("checkout", "ok", f"version {__version__}, commit {commit}")


def requirements() -> list[tuple[str, str]]:
    """Return (requirement, extra or "") of this package: from pyproject.toml in a checkout, else as installed."""
    file = ROOT / "pyproject.toml"
    if file.is_file():
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        optional = project.get("optional-dependencies", {})
        return [(text, "") for text in project["dependencies"]] + [(text, extra) for extra, texts in optional.items() for text in texts]
    return [_split(text) for text in metadata.requires(DISTRIBUTION) or []]


def problem_of(requirement: str) -> str:
    """Return what is wrong with the installed version, or an empty string."""
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is missing"
    fits = wanted.specifier.contains(version, prereleases=True)
    return "" if fits else f"{wanted.name} {version} does not fit {wanted.specifier}"


def _split(text: str) -> tuple[str, str]:
    requirement, _, marker = text.partition(";")
    return requirement.strip(), marker.partition("extra ==")[2].strip(" '\"")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
