"""Does the W&B server answer? Asked for a few seconds only, and what was found is remembered for the other arms of a sweep.

Needs neither torch nor Lightning, and of W&B only the address.
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

PATIENCE = 3.0  # seconds
_MEMORY = "wandb_silent.json"
_REMEMBERED = 600.0  # seconds
_QUESTION = b'{"query": "query {viewer {id}}"}'
T = TypeVar("T")


def knock(url: str, *, patience: float = PATIENCE) -> None:
    """Return if the W&B server at ``url`` answers a question, be it with a refusal; raise OSError if it does not within ``patience``.

    What only Python stumbles over (a certificate that W&B's own program may accept, a SOCKS proxy) is no silence.
    """
    if any(proxy.startswith("socks") for proxy in urllib.request.getproxies().values()):
        return
    # A question to the address that a run talks to: a proxy or a half-dead server may well answer a HEAD of the front page.
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url.rstrip('/')}/graphql", data=_QUESTION, headers=headers)

    def ask() -> None:
        with suppress(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=2 * patience).close()  # within() ends the wait: one message, whatever hangs

    try:
        within(patience, ask)
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLCertVerificationError):
            raise


def fault_of_server(url: str, folder: Path, *, patience: float = PATIENCE) -> str:
    """Return an empty string if the W&B server at ``url`` answers, else why it is taken to be silent.

    ``folder`` (that of the sweep) remembers a silence for ten minutes, so that one arm waits and not each of them; a sweep that is
    started again asks anew.
    """
    if remembered := _remembered(url, folder):
        return remembered
    try:
        knock(url, patience=patience)
    except Exception as error:  # a server can fail in any way
        fault = str(getattr(error, "reason", "") or error) or type(error).__name__
        remember_silence(url, folder, fault)
        return fault
    return ""


def remember_silence(url: str, folder: Path, fault: str) -> None:
    """Note in ``folder`` that the server at ``url`` cannot be used now."""
    path = folder / _MEMORY
    temporary = path.with_name(path.name + ".part")
    with suppress(OSError):  # nothing depends on it
        temporary.write_text(json.dumps({"server": url, "time": time.time(), "fault": fault}) + "\n", encoding="utf-8")
        temporary.replace(path)


def within(seconds: float, action: Callable[[], T]) -> T:
    """Return what ``action`` returns, or raise what it raises; TimeoutError if it takes longer than ``seconds``."""
    outcome: list[tuple[T | None, BaseException | None]] = []

    def act() -> None:
        try:
            outcome.append((action(), None))
        except BaseException as error:
            outcome.append((None, error))

    # A daemon: what hangs (looking up a name ignores every timeout) must not keep the program alive.
    thread = Thread(target=act, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    value, error = outcome[0]
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def _remembered(url: str, folder: Path) -> str:
    try:
        noted = json.loads((folder / _MEMORY).read_text(encoding="utf-8"))
        server, when, fault = noted["server"], float(noted["time"]), str(noted["fault"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    age = time.time() - when
    if server != url or not 0 <= age < _REMEMBERED or when < _start_of_sweep(folder):
        return ""
    return f"{fault}, {age:.0f} s ago"


def _start_of_sweep(folder: Path) -> float:
    path = folder / "multirun.yaml"  # Hydra writes it whenever a sweep is started
    return path.stat().st_mtime if path.is_file() else 0.0
