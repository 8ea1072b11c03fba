"""The picture of README.md: ``python experiments/light_decoder/grid.py OWN LIGHT OUT NAME ...`` (two run folders of task=evaluate).

A row for each name: the middle 96 px of bicubic, of the restorer with its own decoder, and with the light one, at 3x.
"""

import sys
from pathlib import Path

from PIL import Image

SIDE, ZOOM = 96, 3


def tile(path: Path) -> Image.Image:
    """Return the middle of a picture, enlarged without smoothing."""
    picture = Image.open(path).convert("RGB")
    left, top = ((length - SIDE) // 2 for length in picture.size)
    return picture.crop((left, top, left + SIDE, top + SIDE)).resize((SIDE * ZOOM, SIDE * ZOOM), Image.Resampling.NEAREST)


def main(own: str, light: str, out: str, *names: str) -> None:
    """Write the grid to ``out``."""
    columns = [Path(own) / "images" / "bicubic", Path(own) / "images" / "embedded", Path(light) / "images" / "embedded"]
    grid = Image.new("RGB", (len(columns) * SIDE * ZOOM, len(names) * SIDE * ZOOM))
    for row, name in enumerate(names):
        for column, folder in enumerate(columns):
            grid.paste(tile(folder / f"{name}.png"), (column * SIDE * ZOOM, row * SIDE * ZOOM))
    grid.save(out, quality=88)


if __name__ == "__main__":
    main(*sys.argv[1:])
