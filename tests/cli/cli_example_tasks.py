"""Tasks and components that the tests' configuration tree names."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback

from osediff_exp.errors import Incomplete, UserError


class Term:
    """A component to point at."""


class WriteComparison(Callback):
    """Leaves a file in the sweep folder that lists the runs with a result."""

    def on_multirun_end(self, config: Any, **kwargs: Any) -> None:
        sweep = Path(config.hydra.sweep.dir)
        done = sorted(path.parent.name for path in sweep.glob("*/result.json"))
        (sweep / "comparison.txt").write_text("\n".join(done))


def work(config: Any, run_dir: Path) -> dict[str, Any]:
    """Return figures, or fail.

    Seed 13 is a user's mistake, 14 a bug, 15 an interruption, 16 half a job; unless it is lucky, 17 kills the process and 18 and 19 wait to
    be stopped; 20 and 21 fill the disk.
    """
    if config.seed == 13:
        raise UserError("seed=13 brings bad luck: choose another")
    if config.seed == 14:
        raise RuntimeError("first line\nsecond line")
    if config.seed == 15:
        raise KeyboardInterrupt
    if config.seed == 16:
        raise Incomplete("1 of 2 photos is missing: look for it", {"num_images": 1})
    if config.seed == 17 and "LUCKY" not in os.environ:
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        (run_dir / "checkpoints" / "last.ckpt").write_text("half-way")
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed in (18, 19) and "LUCKY" not in os.environ:
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        (run_dir / "checkpoints" / "last.ckpt").write_text(str(os.getpid()))
        time.sleep(300)
    if config.seed in (20, 21):
        (run_dir / "large.bin").write_bytes(bytes(4 << 20))
    terms = ",".join(config.loss.terms)
    return {
        "lambda2": config.lambda2,
        "seed": config.seed,
        "terms": terms,
        "nothing": float("nan"),
        "pid": os.getpid(),
        "resume": config.resume,
    }


def rank_work(config: Any, run_dir: Path) -> dict[str, Any]:
    """Leave a file per rank with what it was told; with seed 14, rank 1 fails while rank 0 waits for it, unless they are lucky."""
    rank = int(os.environ["SLURM_PROCID"])
    with (run_dir / f"rank{rank}.txt").open("a") as file:
        file.write(f"resume={config.resume}\n")
    if config.seed == 14 and "LUCKY" not in os.environ:
        (run_dir / "checkpoints").mkdir(exist_ok=True)
        (run_dir / "checkpoints" / "last.ckpt").write_text("half-way")
        if rank == 1:
            raise RuntimeError("no space left on the device")
        time.sleep(300)
    return {"resume": config.resume}


class SIGTERMException(SystemExit):
    """What Lightning raises at the end of a step after a termination signal."""


def stopped(config: Any, run_dir: Path) -> dict[str, Any]:
    """End as a training does that was told to."""
    raise SIGTERMException


def tell_command(config: Any, run_dir: Path) -> dict[str, Any]:
    """Leave what Lightning would start the other ranks with."""
    if os.environ.get("LOCAL_RANK") == "0":
        seen = {"argv": sys.argv[1:], "run_dir": str(HydraConfig.get().run.dir)}
        (run_dir / "seen.json").write_text(json.dumps(seen))
    return {}
