"""Hydra's, OmegaConf's and YAML's complaints, each as one line that says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from osediff_exp.cli.schema import LAUNCHER_PACKAGES
from osediff_exp.errors import UserError, nearest

ListOptions = Callable[[str], list[str]]


@contextmanager
def as_user_errors(list_options: ListOptions) -> Iterator[None]:
    """Turn what composing raises into UserError; ``list_options(group)`` lists a group's valid names."""
    try:
        yield
    except UserError:
        raise
    except OverrideParseException as error:
        raise UserError(_grammar(error)) from error
    except MissingConfigException as error:
        raise UserError(_no_such_option(error, list_options)) from error
    except yaml.YAMLError as error:
        raise UserError(_yaml(error)) from error
    # The last three: what Hydra and OmegaConf raise, unawares, of values in places where they expect none.
    except (HydraException, OmegaConfBaseException, ValueError, AttributeError, TypeError, AssertionError) as error:
        raise UserError(_deepest(error)) from error


def one_line(text: str, limit: int = 400) -> str:
    """Return ``text`` on one line, at most ``limit`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def no_such_option(group: str, name: str, valid: list[str], where: str = "") -> str:
    """Return the line for an unknown option of a configuration group."""
    package = LAUNCHER_PACKAGES.get(name) if group == "hydra/launcher" else None
    if package:
        return f"hydra/launcher={name} needs a package: pip install {package}"
    listed = f"{group} is one of: {', '.join(valid)}" if valid else f"there is no file for the group '{group}'"
    return f"no {group} is called '{name}'{where}.{nearest(name, valid)} {listed}"


def _grammar(error: OverrideParseException) -> str:
    reason = str(error.message).splitlines()[0]
    return f"cannot read the argument '{error.override}' ({reason}): write key=value, and quote a text with special signs: \"key='a=b'\""


def _no_such_option(error: MissingConfigException, list_options: ListOptions) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    parent = re.match(r"In '([^']+)'", str(error))
    where = f" (named in {parent[1]}.yaml)" if parent and parent[1] != "config" else ""
    return no_such_option(group, name, list_options(group), where)


def _yaml(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{Path(mark.name).name}, line {mark.line + 1}" if mark else "a configuration file"
    return one_line(f"{place} is not valid YAML: {getattr(error, 'problem', None) or error}")


def _deepest(error: BaseException) -> str:
    """Return the message with its cause: Hydra names the argument, OmegaConf below it the reason."""
    messages = [str(error)] + ([str(error.__cause__)] if error.__cause__ is not None else [])
    lines = [line for text in messages for line in text.splitlines()[:2] if line.strip() and "HYDRA_FULL_ERROR" not in line]
    return one_line("; ".join(lines) or type(error).__name__)
