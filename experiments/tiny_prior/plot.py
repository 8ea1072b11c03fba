"""Draw the loss curves of the two pretraining stages: ``python experiments/tiny_prior/plot.py`` (needs matplotlib)."""

import csv
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent


def column(name: str, key: str) -> tuple[list[int], list[float]]:
    """Return steps and values of one column of a metrics.csv."""
    with (HERE / name).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get(key)]
    return [int(row["step"]) for row in rows], [float(row[key]) for row in rows]


def main() -> None:
    """Write loss_curves.png."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.2), layout="constrained")
    panels = (("vae.csv", "train/l1"), ("vae.csv", "val/psnr"), ("prior.csv", "train/loss"), ("prior.csv", "val/loss"))
    for axis, (name, key) in zip(axes, panels, strict=True):
        axis.plot(*column(name, key), linewidth=1.0, marker="." if key.startswith("val") else None)
        axis.set_title(f"{name.removesuffix('.csv')}: {key}")
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if key.endswith(("l1", "loss")):
            axis.set_yscale("log")
    figure.savefig(HERE / "loss_curves.png", dpi=80)


if __name__ == "__main__":
    main()
