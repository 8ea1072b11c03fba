"""Composing configurations without running anything: the whole one, and the reference it is compared with."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from osediff_exp.cli.keys import plain
from osediff_exp.cli.messages import as_user_errors
from osediff_exp.cli.option_files import create_defaults_list, remember_option_files
from osediff_exp.cli.resolvers import register_resolvers
from osediff_exp.cli.schema import EXPERIMENT_GROUP
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hydra._internal.config_repository import CachingConfigRepository
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

CONFIG_NAME = "config"


class Composer:
    """Composes from one configuration tree; every mistake in the tree or in the overrides is a UserError."""

    def __init__(self, *, search: list[str]) -> None:
        """``search``: the overrides that say where else to look (``hydra.searchpath=...``)."""
        self._loader: Any = GlobalHydra.instance().config_loader()
        self._search = search
        # Hydra reads the whole tree again for every question; the arms of a sweep ask the same ones.
        self.is_group = cache(self._is_group)
        self.options = cache(self._options)
        self._parse_one = cache(self._parsed)
        self._whole = cache(self._composed_whole)
        self._reference = cache(self._composed_reference)
        self._declared = cache(lambda choices: plain(self._reference(choices)))

    def _options(self, group: str) -> list[str]:
        """Return the valid names of a group, sorted; empty where there is no such group."""
        with as_user_errors(_no_options):  # the search path may be wrong
            return sorted(name for name in self._repository.get_group_options(group) if not name.startswith("_"))

    def _is_group(self, key: str) -> bool:
        """Tell whether ``key`` names a configuration group."""
        with as_user_errors(_no_options):
            return bool(self._repository.get_group_options(key, None))

    @cached_property
    def _repository(self) -> CachingConfigRepository:
        """The option files, for questions about them; a composition has its own, since it changes what it has read."""
        return self._read(self._search)[1]

    def _read(self, overrides: list[str]) -> tuple[list[Override], CachingConfigRepository]:
        # Hydra has no public call that composes a given list of files.
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="provider=hydra.searchpath")  # of a folder that is not there
                parsed, repository = self._loader._parse_overrides_and_create_caching_repo(CONFIG_NAME, overrides)
        except UserWarning as warning:
            path = str(warning).partition("path=")[2].removesuffix(" is not available.")
            raise UserError(f"hydra.searchpath={path}: there is no such folder") from None
        return parsed, repository

    def groups(self, parent: str = "") -> list[str]:
        """Return every group below ``parent``, with its full name; Hydra's own groups aside."""
        found = [f"{parent}/{name}".lstrip("/") for name in self._loader.list_groups(parent) if not name.startswith("hydra")]
        return found + [below for group in found for below in self.groups(group)]

    def parse(self, overrides: list[str]) -> list[Override]:
        """Read overrides in Hydra's grammar."""
        return [self._parse_one(text) for text in overrides]

    def _parsed(self, text: str) -> Override:
        with as_user_errors(self.options):
            return OverridesParser.create(config_loader=self._loader).parse_overrides([text])[0]

    def whole(self, overrides: list[str]) -> DictConfig:
        """Compose as a run would, Hydra's own node included."""
        return self._whole(tuple(overrides))

    def _composed_whole(self, overrides: tuple[str, ...]) -> DictConfig:
        with as_user_errors(self.options):
            return compose(CONFIG_NAME, overrides=list(overrides), return_hydra_config=True)

    def reference(self, overrides: list[str]) -> DictConfig:
        """Compose the same files without the experiments' contents and without any value override.

        What it holds is what the option files declare: the keys that exist, and the types of their defaults. The choices that an
        experiment makes (its defaults list) stay in force.
        """
        return self._reference(self._choices(overrides))

    def declared(self, overrides: list[str]) -> dict[str, Any]:
        """Return the reference as nested dictionaries and lists."""
        found: dict[str, Any] = self._declared(self._choices(overrides))
        return found

    def _choices(self, overrides: list[str]) -> tuple[str, ...]:
        choices = [str(override.input_line) for override in self.parse(overrides) if self.is_group(override.key_or_group)]
        return (*choices, *self._search)

    def _composed_reference(self, choices: tuple[str, ...]) -> DictConfig:
        with as_user_errors(self.options):
            parsed, repository = self._read(list(choices))
            files = create_defaults_list(repository, CONFIG_NAME, parsed, prepend_hydra=True, skip_missing=False).defaults
            declaring = [file for file in files if not str(file.config_path).startswith(f"{EXPERIMENT_GROUP}/")]
            merged: DictConfig = self._loader._compose_config_from_defaults_list(defaults=declaring, repo=repository)
            return merged


def _no_options(group: str) -> list[str]:
    return []


@contextmanager
def open_composer(conf: Path, overrides: list[str]) -> Iterator[Composer]:
    """Yield a Composer over ``conf``; ``overrides`` may hold a ``hydra.searchpath``."""
    register_resolvers()
    remember_option_files()
    with initialize_config_dir(str(conf), job_name="osediff_exp", version_base="1.3"):
        yield Composer(search=[text for text in overrides if text.lstrip("+").startswith("hydra.searchpath=")])
