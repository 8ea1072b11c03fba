"""Hydra's Slurm launcher (hydra-submitit-launcher), made to submit only the arms of a sweep that have something to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

from osediff_exp.cli.sweeps import Earlier, arm_of, earlier, keep

if TYPE_CHECKING:
    from collections.abc import Sequence


class ResumingSlurmLauncher(SlurmLauncher):
    """Keep the arms that an earlier call has finished, here, and submit the others under their own numbers.

    A job that only finds its arm finished would wait in the queue and hold a node, perhaps a GPU, for nothing.
    """

    _numbers: tuple[int, ...] = ()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Return what came of each arm, in the order of ``job_overrides``; an arm that is kept counts as completed."""
        results: list[Any] = [JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=None) for overrides in job_overrides]
        rest = [place for place, overrides in enumerate(job_overrides) if not self._kept(overrides, initial_job_idx + place)]
        if rest:
            self._numbers = tuple(initial_job_idx + place for place in rest)
            for place, done in zip(rest, super().launch([job_overrides[place] for place in rest], 0), strict=True):
                results[place] = done
        return results

    def _kept(self, overrides: Sequence[str], number: int) -> bool:
        assert self.hydra_context is not None
        assert self.config is not None
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        run_dir, arm = arm_of(config, number, Path(str(config.hydra.sweep.dir)))
        if not run_dir.is_dir() or earlier(run_dir, arm) is not Earlier.RESULT:
            return False
        keep(run_dir)
        return True

    def __call__(self, sweep_overrides: list[str], job_dir_key: str, job_num: int, job_id: str, singleton_state: Any) -> JobReturn:
        """Run in the job: ``job_num`` counts what was submitted, and the arm's folder is named by its number in the sweep."""
        return super().__call__(sweep_overrides, job_dir_key, self._numbers[job_num], job_id, singleton_state)


def use_it() -> None:
    """Let Hydra make this launcher where the configuration names submitit's: it takes none from outside its plugins' packages."""
    Plugins.instance().class_name_to_class[f"{SlurmLauncher.__module__}.{SlurmLauncher.__name__}"] = ResumingSlurmLauncher
