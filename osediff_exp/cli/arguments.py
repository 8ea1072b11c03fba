"""The arguments as typed: a few flags, and overrides (``key=value``) in any order."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from osediff_exp.cli.paths import existing
from osediff_exp.cli.schema import EXPERIMENT_GROUP, SECOND_PLACES
from osediff_exp.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """The command line, normalised: ``overrides`` in Hydra's grammar, ``flags`` the ones Hydra itself answers."""

    help: bool
    version: bool
    multirun: bool
    config_path: str | None
    extra_dirs: tuple[Path, ...]
    overrides: list[str]
    flags: list[str]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m osediff_exp --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(add_help=False, allow_abbrev=False, prog="python -m osediff_exp")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cp", "--config-path")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("-p", "--package")
    parser.add_argument("--resolve", action="store_true")
    return parser


def parse_arguments(argv: list[str]) -> Arguments:
    """Read the command line; raise UserError for an unknown flag."""
    parsed, unknown = _parser().parse_known_intermixed_args(argv)
    known = ["--help", "--version", "--multirun", "--config-path", "--config-dir", "--cfg", "--package", "--resolve"]
    if unknown:
        raise UserError(f"unknown flag '{unknown[0]}'.{nearest(unknown[0], known)} Flags: {', '.join(known)}; settings are key=value")
    if (parsed.package or parsed.resolve) and not parsed.cfg:
        raise UserError("--package and --resolve go with --cfg job (print the configuration): add it")
    extra = _extra_dir(parsed.config_dir)
    return Arguments(
        help=parsed.help,
        version=parsed.version,
        multirun=parsed.multirun,
        config_path=parsed.config_path,
        extra_dirs=extra,
        overrides=[_in_hydras_words(_quoted_path(text)) for text in parsed.overrides]
        + [f"hydra.searchpath={[str(path) for path in extra]}"] * bool(extra),
        flags=_hydra_flags(parsed),
    )


def _extra_dir(text: str | None) -> tuple[Path, ...]:
    if text is not None and not Path(text).is_dir():
        raise UserError(f"--config-dir {text}: there is no such folder")
    return (Path(text).resolve(),) if text is not None else ()


def _in_hydras_words(override: str) -> str:
    """Accept two short forms, which can mean nothing else.

    ``experiment=x`` is Hydra's ``+experiment=x``, whose group has no default; ``val_degradation=x`` is ``degradation@val_degradation=x``,
    an option of one group under another name, and with null its deletion.
    """
    key, equals, value = override.partition("=")
    if equals and key == EXPERIMENT_GROUP:
        return f"+{override}"
    if not equals or key not in SECOND_PLACES:
        return override
    return f"~{SECOND_PLACES[key]}@{key}" if value == "null" else f"{SECOND_PLACES[key]}@{override}"


def _quoted_path(override: str) -> str:
    """Quote a path with signs that Hydra's grammar reads otherwise: the folders of our own arms have equals signs and commas.

    A comma may also part two values of a sweep, and brackets may be a list: such a path is only quoted where it exists.
    """
    key, _, value = override.partition("=")
    if set(value) & set("'\"$\\"):
        return override
    special = set(value) & set("=,[](){}: ")
    is_path = "/" in value if special == {"="} else bool(special) and existing(value) is not None
    return f"{key}='{value}'" if is_path else override


def _hydra_flags(parsed: argparse.Namespace) -> list[str]:
    flags = ["--cfg", parsed.cfg] if parsed.cfg else []
    flags += ["--package", parsed.package] if parsed.package else []
    return flags + ["--resolve"] * parsed.resolve
