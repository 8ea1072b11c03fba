"""A Hydra callback that keeps a sweep's report up to date and prints the comparison when the sweep ends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.text import Text

from osediff_exp.reporting.comparison import ReportSettings
from osediff_exp.reporting.terminal import print_comparison
from osediff_exp.reporting.writing import write_comparison

if TYPE_CHECKING:
    from hydra.core.utils import JobReturn


class SweepReport(Callback):
    """Write the comparison after every job of a sweep and at its end; at the end also print it.

    Hydra skips ``on_multirun_end`` when a job raised, so the refresh after each job is what gives a sweep with a failed arm its report.
    A report that cannot be written costs one printed line, never the runs.
    """

    def __init__(self, *, refresh: bool = True, console: Console | None = None) -> None:
        """``refresh`` False writes only at the end of the sweep (where jobs cannot see each other's folders)."""
        self._refresh = refresh
        self._given_console = console  # none is made yet: launchers pickle their callbacks, and a console holds a lock

    @property
    def _console(self) -> Console:
        return self._given_console or Console()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Refresh the report of the sweep that the job belongs to; a job outside a sweep has none."""
        if self._refresh and str(OmegaConf.select(config, "hydra.mode")).endswith("MULTIRUN"):
            self._write(config, show=False)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the report a last time and print the comparison."""
        self._write(config, show=True)

    def _write(self, config: DictConfig, *, show: bool) -> None:
        try:
            sweep_dir = Path(config.hydra.runtime.cwd) / config.hydra.sweep.dir
            comparison = write_comparison(sweep_dir, settings_of(config))
            if show:
                print_comparison(comparison, self._console)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self._console.print(Text(f"the comparison could not be written ({reason}); the runs are not touched"), soft_wrap=True)


def settings_of(config: DictConfig) -> ReportSettings:
    """Return the settings in ``config.report``; empty where it says nothing."""
    node = OmegaConf.select(config, "report")
    return ReportSettings.of(OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else None)
