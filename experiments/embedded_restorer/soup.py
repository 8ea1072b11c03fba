"""The weighted mean of exported restorers' weights: ``soup.py OUTPUT WEIGHT*FOLDER ...``; record and settings are the first's."""

import shutil
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

output = Path(sys.argv[1])
shares = {Path(folder): float(weight) for weight, folder in (part.split("*", 1) for part in sys.argv[2:])}
first = next(iter(shares))
shutil.copytree(first, output, dirs_exist_ok=True)
for file in first.rglob("*.safetensors"):
    place = file.relative_to(first)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = {folder: load_file(folder / place) for folder in shares}
    mean = {
        name: sum(weight * tensors[folder][name].float() for folder, weight in shares.items()).to(value.dtype).contiguous()
        for name, value in tensors[first].items()
    }
    (output / place).unlink()
    save_file(mean, output / place, metadata=metadata)
