"""Option files that are read once a process: Hydra reads, parses and merges each again for every question and every composition."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.core_plugins import file_config_source, importlib_resources_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hydra._internal.config_repository import CachingConfigRepository
    from hydra.core.default_element import InputDefault, ResultDefault
    from hydra.core.override_parser.types import Override
    from hydra.plugins.config_source import ConfigResult, ConfigSource

_State = tuple[Any, ...]
"""What changes when a file does."""

_MOST = 300
"""How many defaults lists and how many merged configurations are kept: a long sweep has an own one for each arm."""

_read: dict[tuple[str, ...], tuple[_State, bytes]] = {}
_lists: dict[tuple[Any, ...], tuple[list[str], _State, defaults_list.DefaultsList]] = {}
_merged: dict[tuple[Any, ...], tuple[list[_State], bytes]] = {}
_list_of = defaults_list.create_defaults_list
_choices = defaults_list._create_interpolation_map
_merge: Any = config_loader_impl.ConfigLoaderImpl._compose_config_from_defaults_list


# Hydra registers a source once per name and scheme: with its own name ours may be there before or after.
class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's source of option files in folders; a file is read again when it has changed."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the file's content: the caller's own, which it may change."""
        return _read_once(self, config_path, super().load_config)


class ImportlibResourcesConfigSource(importlib_resources_config_source.ImportlibResourcesConfigSource):
    """Hydra's source of the option files in packages."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the file's content: the caller's own, which it may change."""
        return _read_once(self, config_path, super().load_config)


def remember_option_files() -> None:
    """Let Hydra read through these sources, and compose from what it has read and merged, in this process."""
    Plugins.instance()  # registers Hydra's own
    for source in (FileConfigSource, ImportlibResourcesConfigSource):
        SourcesRegistry.instance().types[source.scheme()] = source
    hydra: Any = config_loader_impl
    hydra.create_defaults_list = create_defaults_list
    hydra.ConfigLoaderImpl._compose_config_from_defaults_list = _merge_once
    lists: Any = defaults_list
    lists._create_interpolation_map = _choices_where_needed


def create_defaults_list(
    repo: CachingConfigRepository, config_name: str | None, overrides_list: list[Override], prepend_hydra: bool, skip_missing: bool
) -> defaults_list.DefaultsList:
    """Return Hydra's list of the option files to merge; it depends on the choices of files alone, not on overrides of values."""
    values = defaults_list.Overrides(repo=repo, overrides_list=overrides_list).config_overrides
    choices = tuple(str(override.input_line) for override in overrides_list if not any(override is value for value in values))
    key = (_places(repo), config_name, choices, prepend_hydra, skip_missing)
    paths, states, found = _lists.get(key, ([], None, None))
    if found is None or states != _states(repo, paths):
        found = _list_of(repo, config_name, overrides_list, prepend_hydra, skip_missing)
        paths = [entry.removeprefix("config_path=") for entry in repo.cache]  # also those that it looked for and did not find
        _keep(_lists, key, (paths, _states(repo, paths), found))
    return defaults_list.DefaultsList(
        defaults=found.defaults, defaults_tree=found.defaults_tree, config_overrides=values, overrides=found.overrides
    )


def _choices_where_needed(overrides: Any, defaults: list[InputDefault], self_added: bool) -> DictConfig:
    """Return the choices that a reference in a file's defaults list may name; Hydra makes a configuration of them for every file."""
    if any(default.is_interpolation() for default in defaults):
        return _choices(overrides, defaults, self_added)
    return OmegaConf.create()


def _merge_once(loader: Any, defaults: list[ResultDefault], repo: CachingConfigRepository) -> DictConfig:
    """Return the merged content of the option files: the caller's own."""
    try:
        return _merged_files(loader, defaults, repo)
    except (OmegaConfBaseException, HydraException):
        return _merge(loader, defaults, repo)  # whose words name the file


def _merged_files(loader: Any, defaults: list[ResultDefault], repo: CachingConfigRepository) -> DictConfig:
    """Merge as Hydra does, file by file, from the longest row of first files whose merged content is known."""
    files = tuple((default.config_path, default.package, default.primary) for default in defaults)
    places, states = _places(repo), [_states(repo, [str(path)]) for path, *_ in files]
    kept = ((n, *_merged.get((places, files[:n]), ((), b""))) for n in range(len(files), 0, -1))
    known, content = next(((n, content) for n, then, content in kept if then == states[:n]), (0, b""))
    if known == len(files):
        return pickle.loads(content)
    if len(files) == 1:
        config = _merge(loader, defaults, repo)
    else:
        start = known or _num_of_hydra(files)
        config = _merged_files(loader, defaults[:start], repo)
        with flag_override(config, "no_deepcopy_set_nodes", True):
            for default in defaults[start:]:
                config.merge_with(_merged_files(loader, [default], repo))
    _keep(_merged, (places, files), (states, pickle.dumps(config)))
    return config


def _num_of_hydra(files: Sequence[tuple[str | bool | None, ...]]) -> int:
    """Return how many files come first that all commands share, Hydra's own; the first file alone where there are none."""
    num = sum(1 for _ in itertools.takewhile(lambda file: str(file[0]).startswith("hydra/"), files))
    return num if 0 < num < len(files) else 1


def _read_once(source: ConfigSource, config_path: str, read: Any) -> ConfigResult:
    key, state = (source.scheme(), source.provider, source.path, config_path), _state(source, config_path)
    known_state, content = _read.get(key, (None, b""))
    if known_state != state:
        content = pickle.dumps(read(config_path))
        _read[key] = (state, content)
    found: ConfigResult = pickle.loads(content)  # several times as fast as a deep copy
    return found


def _places(repo: CachingConfigRepository) -> tuple[tuple[str, str], ...]:
    """Return where a repository looks for option files."""
    return tuple((str(source.provider), f"{source.scheme()}://{source.path}") for source in repo.get_sources())


def _states(repo: CachingConfigRepository, paths: Iterable[str]) -> _State:
    return tuple(_state(source, path) for source in repo.get_sources() for path in paths)


def _state(source: ConfigSource, path: str) -> _State:
    """Return the state of an option file in a folder; empty where there is none. What lies in a package does not change."""
    if source.scheme() != "file":
        return ()
    try:
        state = Path(source.path, source._normalize_file_name(path)).stat()
    except OSError:
        return ()
    return state.st_mtime_ns, state.st_size, state.st_ino


def _keep(known: dict[Any, Any], key: Any, value: Any) -> None:
    """Remember a value, and forget the oldest of too many."""
    known[key] = value
    if len(known) > _MOST:
        del known[next(iter(known))]
