"""Puts this folder on the import path, so that the tests find ``sweep_folders`` in every import mode of pytest."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
