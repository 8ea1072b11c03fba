"""Option files that are read once a process: Hydra reads and parses each again for every question and every composition."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from hydra._internal.core_plugins import file_config_source, importlib_resources_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins

if TYPE_CHECKING:
    from hydra.plugins.config_source import ConfigResult

_Key = tuple[str, str, str, int, int]
_READ: dict[_Key, ConfigResult] = {}


# Hydra registers a source once per name and scheme: with its own name ours may be there before or after.
class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's source of option files in folders; a file is read again when its time or size has changed."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the file's content: the caller's own, which it may change."""
        try:
            state = Path(self.path, self._normalize_file_name(config_path)).stat()
        except OSError:
            return super().load_config(config_path)
        key = (self.provider, self.path, config_path, state.st_mtime_ns, state.st_size)
        return _own_copy(_READ.get(key) or _READ.setdefault(key, super().load_config(config_path)))


class ImportlibResourcesConfigSource(importlib_resources_config_source.ImportlibResourcesConfigSource):
    """Hydra's source of the option files in packages."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the file's content: the caller's own, which it may change."""
        key = (self.provider, self.path, config_path, 0, 0)
        return _own_copy(_READ.get(key) or _READ.setdefault(key, super().load_config(config_path)))


def _own_copy(found: ConfigResult) -> ConfigResult:
    result = copy.copy(found)
    result.config = copy.deepcopy(found.config)
    return result


def remember_option_files() -> None:
    """Let Hydra read through these sources, in this process."""
    Plugins.instance()  # registers Hydra's own
    for source in (FileConfigSource, ImportlibResourcesConfigSource):
        SourcesRegistry.instance().types[source.scheme()] = source
