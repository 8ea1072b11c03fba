"""Names that the command line's tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
CONF = HERE / "conf"
Call = Callable[..., subprocess.CompletedProcess[str]]
