"""Is there a grid, and of which period? ``python experiments/embedded_restorer/grid.py FOLDER ...`` (a run's images/output).

Prints the autocorrelation of the high-passed luma at lags of 1 to 12 px, over rows and columns: a grid is a bump at its period.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

LAGS = range(1, 13)
SIGMA = 3.0  # px, of the blur that is taken off


def autocorrelation(path: Path) -> list[float]:
    """Return the normalised autocorrelation at each lag."""
    luma = np.asarray(Image.open(path).convert("L"), dtype=float)
    high = luma - gaussian_filter(luma, SIGMA)
    power = (high * high).mean()
    return [((high[:, k:] * high[:, :-k]).mean() + (high[k:] * high[:-k]).mean()) / 2 / power for k in LAGS]


def main(folders: list[str]) -> None:
    """Print a line for each folder."""
    for folder in folders:
        means = np.mean([autocorrelation(path) for path in sorted(Path(folder).glob("*.png"))], axis=0)
        print(f"{folder}: " + " ".join(f"{value:.2f}" for value in means))


if __name__ == "__main__":
    main(sys.argv[1:])
