"""Networks that other packages bring and whose weights they download: built quietly, and a failure tells the user what to do."""

from __future__ import annotations

import io
import logging
import socket
import warnings
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import torch

from osediff_exp.errors import UserError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_DOWNLOAD_TIMEOUT = 20.0  # seconds without a byte; without one a machine behind a firewall would wait for minutes
_INSTALL = "pip install osediff-exp[iqa] (pyiqa's licence is PolyForm Noncommercial)"


@contextmanager
def weights_of(metric: str) -> Iterator[None]:
    """Turn whatever goes wrong while the networks of ``metric`` are built into one UserError with a remedy."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        with _quiet():
            yield
    except ImportError as error:  # pyiqa imports a network's own packages when it is built
        raise UserError(f"{metric} needs a package that cannot be imported here ({error}): {_INSTALL}") from error
    except Exception as error:  # downloads and damaged files fail in many ways; each means that the weights cannot be had
        reason = " ".join(f"{type(error).__name__} {error}".split())
        raise UserError(
            f"the weights of {metric} cannot be loaded ({_shortened(reason)}): run once with a network, "
            f"or copy the folders {torch.hub.get_dir()}, ~/.cache/huggingface and ~/.cache/clip of a machine that did"
        ) from error
    finally:
        socket.setdefaulttimeout(timeout)


@contextmanager
def _quiet() -> Iterator[None]:
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _shortened(text: str, length: int = 120) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def pyiqa_network(name: str) -> nn.Module:
    """Return pyiqa's metric ``name`` with its released weights, frozen, in evaluation mode, on the CPU.

    Its licence (PolyForm Noncommercial) is why it is an optional extra and imported here only.

    Raises:
        UserError: pyiqa is not installed, has no such metric, or its weights cannot be had.
    """
    try:
        with _quiet():
            import pyiqa
    except ImportError as error:
        lacking = "" if error.name == "pyiqa" else f", which cannot be imported here ({error})"
        raise UserError(f"{name} needs the package pyiqa{lacking}: {_INSTALL}") from error
    logging.getLogger("pyiqa").setLevel(logging.WARNING)
    if name not in (names := pyiqa.list_models()):
        raise UserError(f"pyiqa has no metric '{name}'.{nearest(name, names)}")
    with weights_of(name):
        return pyiqa.create_metric(name, device=torch.device("cpu")).requires_grad_(False).eval()
