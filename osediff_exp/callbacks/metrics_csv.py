"""metrics.csv: a logger whose file is complete after every write and survives a resume."""

from __future__ import annotations

import csv
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from osediff_exp.whole_files import whole_file

Row = dict[str, float]


class MetricsCsv(Logger):
    """Write every logged figure to ``path``: one row per step, columns ``step`` and then the keys in order of appearance.

    The file is rewritten atomically at each flush, so a reader never sees half a row. Rows already there (a resumed run) are kept up to
    the step from which training goes on: a figure logged again for a step replaces the old one.
    """

    def __init__(self, *, path: str, flush_every_n_logs: int = 20) -> None:
        super().__init__()
        self.path = Path(path)
        self.flush_every_n_logs = flush_every_n_logs
        self._rows: dict[int, Row] = _read(self.path)
        self._pending = 0

    @property
    def name(self) -> str:
        return "metrics_csv"

    @property
    def version(self) -> int:
        return 0

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsCsv:
        return self

    def forget_after(self, step: int) -> None:
        """Drop rows later than ``step``: what a resumed run will write anew."""
        self._rows = {key: row for key, row in self._rows.items() if key <= step}

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = self._rows.setdefault(step or 0, {})
        row.update({key: float(value) for key, value in metrics.items() if key != "epoch"})
        self._pending += 1
        if self._pending >= self.flush_every_n_logs:
            self.save()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing to do: config.yaml holds the whole configuration."""

    @rank_zero_only
    def save(self) -> None:
        columns = ["step", *dict.fromkeys(key for row in self._rows.values() for key in row)]
        with whole_file(self.path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            for step in sorted(self._rows):
                writer.writerow({"step": step, **{key: f"{value:.8g}" for key, value in self._rows[step].items()}})
        self._pending = 0

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._rows:
            self.save()


def _read(path: Path) -> dict[int, Row]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row.pop("step")): {key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)}
