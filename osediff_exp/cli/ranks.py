"""The processes (ranks) of one run: which of them this is, and how those that Slurm starts learn what rank 0 does with an arm's folder.

Slurm starts every rank of a job alike, and each calls the arm's job. Rank 0 alone looks into the folder: what it finds there it changes at
once, so another rank that looked for itself would see a finished arm or an empty one by chance. The others wait for its word, a small file.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

from osediff_exp.cli.records import write_text
from osediff_exp.picture_header import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LAUNCH = ".launch.json"
_PATIENCE = 600.0  # seconds; a network file system may show a new file a minute late
_OF_ONE_RUN = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", VARIABLE)


class Decision(Enum):
    """What rank 0 does with an arm."""

    KEEP = "keep"
    START = "start"
    GO_ON = "go on"
    REFUSE = "refuse"


def process_rank() -> int:
    """Return this process's rank in distributed training, as torchrun, Lightning or Slurm tell it; 0 alone writes records."""
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def launch_id() -> str | None:
    """Return what the ranks that Slurm started together have in common, and no other launch has; None where it started only one."""
    if "SLURM_PROCID" not in os.environ or int(os.environ.get("SLURM_NTASKS", "1")) < 2:
        return None
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SLURM_SRUN_COMM_PORT")
    return ".".join(os.environ.get(name, "") for name in names)


def tell_ranks(run_dir: Path, decision: Decision) -> None:
    """Let the other ranks of this launch know what is done with the arm; nothing where there are none."""
    if (launch := launch_id()) is not None:
        write_text(run_dir / LAUNCH, json.dumps({"launch": launch, "decision": decision.value}) + "\n")


def rank_zeros_decision(run_dir: Path, patience: float = _PATIENCE) -> Decision:
    """Wait for what rank 0 of this launch does with the arm.

    Raises:
        TimeoutError: rank 0 has said nothing for ``patience`` seconds.
    """
    launch, until = launch_id(), time.monotonic() + patience
    while time.monotonic() < until:
        if (found := _read(run_dir / LAUNCH)).get("launch") == launch:
            return Decision(found["decision"])
        time.sleep(0.1)
    raise TimeoutError(f"rank {process_rank()} has waited {patience:.0f} s for rank 0, which has not begun")


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def end_as_failed() -> None:
    """Make this rank's process end with status 1 after all it still has to write, where that is what frees the other ranks.

    They may wait for it in a collective operation for half an hour. Slurm, with SLURM_KILL_BAD_EXIT, stops them when a rank ends badly, but
    Hydra and submitit keep a failure to themselves. Lightning kills rank 0, and with it a serial sweep, when a rank it started ends badly:
    that is spared where rank 0 sees the connection break, fails by itself, and the sweep goes on.
    """
    if launch_id() is not None or (process_rank() > 0 and not _rank_zero_sees_it()):
        atexit.register(_exit_with_one)


def _rank_zero_sees_it() -> bool:
    torch: Any = sys.modules.get("torch")
    group = torch.distributed if torch is not None and torch.distributed.is_available() else None
    return group is not None and group.is_initialized() and group.get_backend() == "gloo"


def _exit_with_one() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


@contextmanager
def environment_of_one_run() -> Iterator[None]:
    """Put back what Lightning notes of its ranks in the environment, and what the run set: the next arm of this process has its own."""
    before = {name: os.environ.get(name) for name in _OF_ONE_RUN}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
