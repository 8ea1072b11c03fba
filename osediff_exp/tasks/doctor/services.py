"""What lies beyond this machine: asking servers without waiting long, and W&B."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from threading import Thread

from omegaconf import DictConfig

from osediff_exp.tasks.doctor.check import Check, first_line

PATIENCE = 3.0  # seconds for all servers of one check together


def wandb(config: DictConfig, run_dir: Path) -> Check:
    """Where will curves go? W&B is never in the way: without a key or a server a run is logged offline."""
    from osediff_exp.callbacks.wandb_record import chosen_mode, has_key, server_url
    from osediff_exp.callbacks.wandb_server import knock

    mode, keyed = chosen_mode(config.logger.wandb.mode), has_key()
    if mode in ("disabled", "offline"):
        reason = " (no key)" if config.logger.wandb.mode == "auto" and not keyed else ""
        return Check("wandb", "ok", f"mode {mode}{reason}: {'nothing is logged' if mode == 'disabled' else 'runs are logged offline'}")
    if not keyed:
        return Check("wandb", "warning", "mode online, but no key: runs will be logged offline", "wandb login, or export WANDB_API_KEY")
    server = server_url()
    fault = ask_all({server: partial(knock, server)})[server]
    if fault:
        return Check(
            "wandb", "warning", f"mode {mode}, key found, {server}: {fault}", "runs will be logged offline; send them later: wandb sync"
        )
    return Check("wandb", "ok", f"mode {mode}, key found, {server} answers")


def ask_all(questions: Mapping[str, Callable[[], object]], *, patience: float = PATIENCE) -> dict[str, str]:
    """Ask all at once; return, by name, an empty string or why there was no good answer within ``patience`` seconds in all."""
    faults: dict[str, str] = {}

    def ask(name: str, question: Callable[[], object]) -> None:
        try:
            question()
        except Exception as error:  # a server can fail in any way
            faults[name] = first_line(error)
        else:
            faults[name] = ""

    # Daemons: looking up a name ignores every timeout, and must not keep the program alive.
    threads = [Thread(target=ask, args=item, daemon=True) for item in questions.items()]
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {name: faults.get(name, f"no answer within {patience:g} s") for name in questions}


def ask_for(url: str) -> None:
    """Return if ``url`` can be had; raise OSError if not. Proxies of the environment are used."""
    urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PATIENCE).close()
