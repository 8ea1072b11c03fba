"""Everything that is decided before the first arm starts: the checks, the arms of a sweep, and the folder."""

from __future__ import annotations

import errno
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from osediff_exp.cli.check import check, check_keys
from osediff_exp.cli.compose import Composer, open_composer
from osediff_exp.cli.inputs import check_inputs
from osediff_exp.cli.messages import as_user_errors
from osediff_exp.cli.ranks import is_one_of_several, launch_id, process_rank, rank_zeros_folder
from osediff_exp.cli.refused import refusal, refusals
from osediff_exp.cli.side_by_side import check_side_by_side
from osediff_exp.cli.slurm import check_job, runs_on_slurm
from osediff_exp.cli.sweeps import Sweep, arm_of, earlier, is_of, unfinished_sweep
from osediff_exp.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from osediff_exp.cli.arguments import Arguments

_MOST_ARMS = 128
"""Above this many arms each swept value is checked once, not in every combination: a check takes about a tenth of a second."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: Hydra's arguments, the composition without the swept values and those of the arms that were checked, the folder of the
    run or sweep, what is known of the sweep (None: a single run), who runs it, and whether an earlier one in the folder is set aside."""

    overrides: list[str]
    config: DictConfig
    arms: list[DictConfig]
    folder: Path
    sweep: Sweep | None
    on_slurm: bool
    fresh: bool

    @property
    def multirun(self) -> bool:
        """Whether several arms run, each in a folder of its own."""
        return self.sweep is not None


def make_plan(conf: Path, arguments: Arguments) -> Plan:
    """Check every arm and settle the folder; raise UserError for the first mistake. Creates nothing."""
    try:
        return _made_plan(conf, arguments)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        raise UserError("a name on the command line is longer than a file's may be: shorten it") from error


def _made_plan(conf: Path, arguments: Arguments) -> Plan:
    with open_composer(conf, arguments.overrides) as composer:
        parsed = composer.parse(arguments.overrides)
        fixed = [text for text, override in zip(arguments.overrides, parsed, strict=True) if not override.is_sweep_override()]
        check_keys(composer, fixed)
        shared = config = composer.whole(fixed)
        multirun = arguments.multirun or config.hydra.mode == RunMode.MULTIRUN
        swept = _swept(composer, config, parsed) if multirun else []
        if not multirun or arguments.flags:
            _refuse_sweeps(parsed, printing=bool(arguments.flags))
        arms: list[DictConfig] = []
        for arm in _arms(swept):
            arms.append(config := check(composer, [*fixed, *arm]))
            if not arguments.flags:  # a configuration may be printed away from its data
                check_inputs(config)
            if multirun:
                check_job(shared, config)
        if not arguments.flags:
            check_side_by_side(arms, [override.key_or_group for override in parsed])
        if multirun and all(refusal(arm) for arm in arms):
            raise UserError(f"no run of this sweep is left: {'; '.join(refusals(arms))}")
        sweep = Sweep.of(arguments.overrides, config, _num_arms(config, swept)) if multirun else None
        folder = _folder(composer, config, arguments.overrides, sweep, runs=not arguments.flags)
        naming, fresh = _naming(swept, parsed), bool(config.get("fresh"))
        if sweep is not None and not fresh:
            _check_earlier_arms(composer, folder, sweep, [*naming, *fixed], swept)
        overrides = [*naming, *arguments.overrides, *_placing(folder, multirun)]
        on_slurm = multirun and runs_on_slurm(config)
        return Plan(overrides=overrides, config=shared, arms=arms, folder=folder, sweep=sweep, on_slurm=on_slurm, fresh=fresh)


def _check_earlier_arms(composer: Composer, folder: Path, sweep: Sweep, fixed: list[str], swept: list[list[str]]) -> None:
    """Raise UserError where an arm would meet, in the chosen folder, a run with other settings: before anything is written or started."""
    if sweep.num_arms is None or not folder.is_dir() or is_of(folder, sweep):
        return
    for number, arm in enumerate(itertools.product(*swept)):
        run_dir, config = arm_of(composer.whole([*fixed, *arm]), number, folder)
        if run_dir.is_dir():
            earlier(run_dir, config)


def _refuse_sweeps(parsed: list[Override], *, printing: bool) -> None:
    sweep = next((override.input_line for override in parsed if override.is_sweep_override()), None)
    if sweep is not None:
        key, _, value = sweep.partition("=")
        if printing:
            raise UserError(f"--cfg prints the configuration of one run: give {key} one value, or write a list as {key}=[{value}]")
        raise UserError(f"{sweep} names several values: add -m to run each of them, or write a list as {key}=[{value}]")


def _swept(composer: Composer, config: DictConfig, typed: list[Override]) -> list[list[str]]:
    """Return, per swept key, its values as overrides. What is typed replaces the experiment's sweep over the same key."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    brought = composer.parse([f"{key}={value}" for key, value in params.items()])
    by_key = {override.get_key_element(): override for override in [*brought, *typed]}
    own = next((key for key, override in by_key.items() if override.is_hydra_override() and override.is_sweep_override()), None)
    if own is not None:
        raise UserError(f"{own} cannot be swept: Hydra's own settings are the same for all runs of a sweep")
    with as_user_errors(composer.options):
        values = [_values(override) for override in by_key.values() if override.is_sweep_override() or override in brought]
    return [found for found in values if found]


def _values(override: Override) -> list[str]:
    key = override.get_key_element()
    if override.is_discrete_sweep():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    if override.is_interval_sweep():
        return [f"{key}={getattr(override.value(), 'start', '')}"]
    return [f"{key}={override.get_value_element_as_str()}"]


def _arms(swept: list[list[str]]) -> list[list[str]]:
    if math.prod(len(values) for values in swept) <= _MOST_ARMS:
        return [list(arm) for arm in itertools.product(*swept)]
    first = [values[0] for values in swept]
    return [[*first[:i], value, *first[i + 1 :]] for i, values in enumerate(swept) for value in values]


def _num_arms(config: DictConfig, swept: list[list[str]]) -> int | None:
    plain = str(config.hydra.sweeper.get("_target_", "")).endswith("BasicSweeper")
    return math.prod(len(values) for values in swept) if plain else None


def _naming(swept: list[list[str]], parsed: list[Override]) -> list[str]:
    """Keep what all arms share out of the arms' folder names."""
    names = {values[0].partition("=")[0].lstrip("+") for values in swept if len(values) > 1}
    shared = sorted({override.get_key_element().lstrip("+~") for override in parsed} - names)
    return [f"hydra.job.config.override_dirname.exclude_keys={[*shared]}"] if swept and shared else []


def _folder(composer: Composer, config: DictConfig, typed: list[str], sweep: Sweep | None, *, runs: bool) -> Path:
    """Return the folder as an absolute path; a default name already taken (a run of the same second) gets a number.

    A sweep whose folder is not chosen goes on in the one that the same command left unfinished. Of several ranks that were started as this
    one was, rank 0 chooses, and the others wait for it; ``runs`` is False where nothing will run.
    """
    key, other = ("hydra.sweep.dir", "hydra.run.dir") if sweep else ("hydra.run.dir", "hydra.sweep.dir")
    is_typed = {name: any(text.lstrip("+").startswith(f"{name}=") for text in typed) for name in (key, other)}
    if is_typed[other] and not is_typed[key]:
        what = "these are several runs, whose folder is" if sweep else "this is a single run, whose folder is"
        raise UserError(f"{other} has no meaning here: {what} {key}; write {key}=FOLDER")
    with as_user_errors(composer.options):
        text = OmegaConf.select(config, key)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{key} is empty: give a folder, or leave it out")
    folder = Path(text).expanduser().absolute()
    if is_typed[key]:
        return folder
    if runs and _started_by_hand(config):
        raise UserError(f"several processes run this together, and nothing tells them one folder: write {key}=FOLDER for all of them")
    if runs and process_rank() > 0:
        return _rank_zeros_folder(folder.parent, key)
    if sweep and not config.get("fresh") and (unfinished := unfinished_sweep(folder.parent, sweep)):
        return unfinished
    if not folder.exists():
        return folder
    return next(path for n in itertools.count(2) if not (path := folder.with_name(f"{folder.name}_{n}")).exists())


def _started_by_hand(config: DictConfig) -> bool:
    """Tell whether other ranks run the same command elsewhere, and have nothing in common with this one that no other launch has."""
    nodes = OmegaConf.select(config, "trainer.num_nodes")
    on_nodes = isinstance(nodes, int) and nodes > 1 and not runs_on_slurm(config)  # which starts them itself
    return launch_id() is None and (is_one_of_several() or on_nodes)


def _rank_zeros_folder(parent: Path, key: str) -> Path:
    try:
        return rank_zeros_folder(parent)
    except TimeoutError as error:
        raise UserError(f"{error} or names its folder where this rank does not see it ({parent}): write {key}=FOLDER") from error


def _placing(folder: Path, multirun: bool) -> list[str]:
    """Tell Hydra the settled folder: its own clock would name another second."""
    escaped = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.{'sweep' if multirun else 'run'}.dir='{escaped}'"]
