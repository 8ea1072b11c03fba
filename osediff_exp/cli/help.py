"""The text of ``--help``, read off the configuration tree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.cli.conf_tree import groups, options, summary
from osediff_exp.cli.schema import EXPERIMENT_GROUP, SECOND_PLACES

if TYPE_CHECKING:
    from pathlib import Path

_USAGE = """\
osediff_exp: train, ablate and compare one-step diffusion super-resolution

  python -m osediff_exp [task=NAME] [+experiment=NAME] [GROUP=OPTION ...] [key=value ...] [-m]
"""

_FLAGS = """\
Flags
  -m, --multirun      run every combination of comma-separated values; an experiment may bring its own sweep
  -c, --cfg job       print the composed configuration and stop (--resolve, --package KEY)
  --config-dir DIR    add a folder of your own experiments and options
  --config-path DIR   use another configuration tree
  --version           print the version
"""

_EXAMPLES = """\
Examples
  python -m osediff_exp                                         train the default recipe
  python -m osediff_exp lambda2=0.5 hydra.run.dir=runs/half     change a value and say where the run goes
  python -m osediff_exp -m lambda2=0,1 hydra.sweep.dir=runs/vsd two runs, then their comparison
  python -m osediff_exp task=report runs=runs/vsd               write the comparison of what is there anew
  python -m osediff_exp task=report runs=[runs/vsd,runs/half]   compare hand-picked sweeps and runs

The last line printed is the run's (or the sweep's) folder. Exit status: 0 done, 1 a run failed, 2 a mistake in the call.
"""


def help_text(roots: list[Path]) -> str:
    """Return the help for the given configuration trees."""
    named = [_table("Tasks (task=NAME)", roots, "task"), _table("Experiments (+experiment=NAME)", roots, EXPERIMENT_GROUP)]
    others = [name for name in groups(roots) if name not in ("task", EXPERIMENT_GROUP)]
    lines = [f"  {name + '=':<24}{', '.join(options(roots, name))}" for name in others]
    lines += [f"  {name + '=':<24}as {group}, or null" for name, group in SECOND_PLACES.items()]
    return "\n".join([_USAGE, *[text for text in named if text], "\n".join(["Groups (GROUP=OPTION)", *lines, ""]), _FLAGS, _EXAMPLES])


def _table(title: str, roots: list[Path], group: str) -> str:
    names = options(roots, group)
    lines = [f"  {name:<24}{summary(roots, group, name)}".rstrip() for name in names]
    return "\n".join([title, *lines, ""]) if names else ""
