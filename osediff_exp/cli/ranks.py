"""The processes (ranks) of one run: which of them this is, and how those that Slurm or torchrun starts learn what rank 0 does with an arm's
folder.

Slurm starts every rank of a job alike, and each calls the arm's job. Rank 0 alone looks into the folder: what it finds there it changes at
once, so another rank that looked for itself would see a finished arm or an empty one by chance. The others wait for its word, a small file.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import sys
import time
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osediff_exp.cli.records import write_text
from osediff_exp.picture_header import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    """Return this process's rank in distributed training, as torchrun, Lightning or Slurm tell it; 0 alone writes records.

    Where only node and place on the node are told, and not how many a node has, it is a rank of that node: above 0 on every node but the
    first.
    """
    node = _number("NODE_RANK", "GROUP_RANK")
    if "RANK" not in os.environ and (node or "LOCAL_RANK" in os.environ):
        return node * _number("LOCAL_WORLD_SIZE", default=1) + _number("LOCAL_RANK")
    return _number("RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")


def is_one_of_several() -> bool:
    """Tell whether somebody has started this process as one of several ranks."""
    return launch_id() is not None or process_rank() > 0 or _number("WORLD_SIZE", default=1) > 1


def launch_id() -> str | None:
    """Return what the ranks that Slurm, or torchrun on one node, started together have in common, and no other launch has; else None.

    None also where only one was started. What ranks on several nodes share without Slurm (an address, a name that was typed) an earlier
    launch may have had too.
    """
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "")
    if "SLURM_PROCID" in os.environ and _number("SLURM_NTASKS", default=1) > 1:
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT", "SLURM_SRUN_COMM_PORT")
        return ".".join([*(os.environ.get(name, "") for name in names), *([again] if again else [])])
    if "TORCHELASTIC_RUN_ID" in os.environ and 1 < _number("WORLD_SIZE", default=1) == _number("LOCAL_WORLD_SIZE"):
        return f"torchrun.{socket.gethostname()}.{os.getppid()}.{_begun(os.getppid())}.{again}"
    return None


def _number(*names: str, default: int = 0) -> int:
    return next((int(os.environ[name]) for name in names if name in os.environ), default)


def _begun(process: int) -> str:
    """Return when the process began, which tells it from an earlier one of the same number; empty where the system does not say."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def tell_ranks(run_dir: Path, decision: Decision) -> None:
    """Let the other ranks of this launch know what is done with the arm; nothing where there are none."""
    if (launch := launch_id()) is not None:
        write_text(run_dir / LAUNCH, json.dumps({"launch": launch, "decision": decision.value}) + "\n")


def rank_zeros_decision(run_dir: Path, patience: float = _PATIENCE) -> Decision:
    """Wait for what rank 0 of this launch does with the arm.

    Raises:
        TimeoutError: rank 0 has said nothing for ``patience`` seconds.
    """
    return Decision(_word_of_rank_zero(run_dir / LAUNCH, patience)["decision"])


@contextmanager
def folder_told(folder: Path) -> Iterator[None]:
    """Let the other ranks of this launch know the folder that rank 0 has settled, while the block runs; nothing where there are none."""
    if (launch := launch_id()) is None or process_rank() > 0:
        yield
        return
    word = _folders_word(folder.parent, launch)
    write_text(word, json.dumps({"launch": launch, "folder": str(folder)}) + "\n")
    try:
        yield
    finally:
        word.unlink(missing_ok=True)


def rank_zeros_folder(parent: Path, patience: float = _PATIENCE) -> Path:
    """Wait for the folder, in ``parent``, that rank 0 of this launch has settled: each would read another time from its clock.

    Raises:
        TimeoutError: rank 0 has said nothing for ``patience`` seconds.
    """
    launch = launch_id()
    assert launch is not None
    return Path(_word_of_rank_zero(_folders_word(parent, launch), patience)["folder"])


def _folders_word(parent: Path, launch: str) -> Path:
    return parent / f"{LAUNCH.removesuffix('.json')}.{launch}.json"


def _word_of_rank_zero(path: Path, patience: float) -> dict[str, str]:
    launch, until = launch_id(), time.monotonic() + patience
    while time.monotonic() < until:
        if (found := _read(path)).get("launch") == launch:
            return found
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
