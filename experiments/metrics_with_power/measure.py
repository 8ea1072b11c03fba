"""Do kid, fd and niqe_set rank what is known? ``python experiments/metrics_with_power/measure.py REALSR [NUM]`` prints three tables.

REALSR has the field's test_LR, test_HR and results_osediff. Every figure stands with its standard error over pictures (each of another
photo); "step" is the paired difference from the line above in its group (the first one's from HQ) in standard errors.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from osediff_exp.metrics.base import ImageMetric
from osediff_exp.metrics.fd import FD
from osediff_exp.metrics.kid import KID
from osediff_exp.metrics.niqe import NIQE
from osediff_exp.metrics.niqe_set import NIQESet
from osediff_exp.metrics.set_metric import SetMetric
from osediff_exp.metrics.st_lpips import STLPIPS

Change = Callable[[Image.Image, str], Image.Image]
SET_METRICS: dict[str, type[SetMetric]] = {"kid": KID, "fd": FD, "niqe_set": NIQESet}


def blurred(sigma: float) -> Change:
    return lambda hq, name: hq.filter(ImageFilter.GaussianBlur(sigma))


def noisy(sigma: float) -> Change:
    def change(hq: Image.Image, name: str) -> Image.Image:
        rng = np.random.default_rng([ord(letter) for letter in name])
        pixels = np.asarray(hq) + rng.normal(0, sigma, (hq.height, hq.width, 3))
        return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))

    return change


def compressed(quality: int) -> Change:
    def change(hq: Image.Image, name: str) -> Image.Image:
        hq.save(buffer := io.BytesIO(), "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def groups(root: Path) -> dict[str, dict[str, Change]]:
    def bicubic(hq: Image.Image, name: str) -> Image.Image:
        return opened(root / "test_LR" / name).resize(hq.size, Image.Resampling.BICUBIC)

    return {
        "restored": {"the authors' outputs": lambda hq, name: opened(root / "results_osediff" / name), "bicubic": bicubic},
        "blur": {f"blur, sigma {sigma}": blurred(sigma) for sigma in (0.5, 1, 2)},
        "noise": {f"noise, sigma {sigma}": noisy(sigma) for sigma in (4, 8, 16)},
        "JPEG": {f"JPEG {quality}": compressed(quality) for quality in (90, 70, 40)},
    }


def described(
    change: Change, originals: dict[str, Image.Image], metrics: dict[str, SetMetric], seconds: dict[str, float]
) -> dict[str, list[Tensor]]:
    rows: dict[str, list[Tensor]] = {key: [] for key in metrics}
    for name, hq in originals.items():
        pair = tensor(change(hq, name)), tensor(hq)
        for key, metric in metrics.items():
            started = time.process_time()
            rows[key] += metric.describe(*pair)
            seconds[key] += time.process_time() - started
    return rows


def error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / len(values) ** 0.5)


def ranking(
    found: dict[str, dict[str, list[Tensor]]], names: list[str], metrics: dict[str, SetMetric], above: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Print a line per set of pictures, with its step from ``above`` or the line before; return the contributions."""
    contributions: dict[str, dict[str, np.ndarray]] = {}
    for name in names:
        cells = []
        for key, metric in metrics.items():
            score = metric.score([rows.double() for rows in found[name][key]])
            assert score.contributions is not None
            values = score.contributions.numpy()
            contributions.setdefault(name, {})[key] = values
            step = values - above[key] if above else np.zeros(len(values))
            cells += [f"{values.mean():.4f} +- {error(values):.4f}", f"{step.mean() / error(step):.1f}" if step.any() else ""]
        above = contributions[name]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return contributions


def bootstrap(one: list[Tensor], other: list[Tensor], metric: SetMetric, draws: int = 200) -> np.ndarray:
    """Return differences of the metric, computed anew for pictures drawn with replacement."""
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(draws):
        drawn = rng.integers(0, len(one), len(one))
        differences.append(float(metric.score([one[k] for k in drawn]).value - metric.score([other[k] for k in drawn]).value))
    return np.array(differences)


def halves(originals: dict[str, Image.Image], metrics: dict[str, SetMetric]) -> dict[str, list[Tensor]]:
    """Describe the left half of every original as if it had been restored, and the right half as its truth."""
    rows: dict[str, list[Tensor]] = {key: [] for key in metrics}
    for hq in originals.values():
        left, right = tensor(hq).chunk(2, dim=3)
        for key, metric in metrics.items():
            rows[key] += metric.describe(left, right)
    return rows


def main(root: Path, num: int) -> None:
    torch.set_num_threads(1)
    paths = sorted((root / "test_HR").iterdir())
    originals = {path.name: opened(path) for path in paths[:: len(paths) // num][:num]}
    metrics = {key: build() for key, build in SET_METRICS.items()}
    seconds = dict.fromkeys(metrics, 0.0)
    print(f"| {num} pictures | kid | step | fd | step | niqe_set | step |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    ranking({"HQ, left and right halves": halves(originals, metrics)}, ["HQ, left and right halves"], metrics, {})
    found = {"HQ": described(lambda hq, name: hq, originals, metrics, dict.fromkeys(metrics, 0.0))}
    contributions = ranking(found, ["HQ"], metrics, {})
    for group in groups(root).values():
        for name, change in group.items():
            found[name] = described(change, originals, metrics, seconds)
        contributions |= ranking(found, list(group), metrics, contributions["HQ"])

    print("\nThe difference authors - bicubic: its standard error by the contributions, by the bootstrap, and the bootstrap's own bias\n")
    print("| metric | difference | contributions | bootstrap | bias |\n| --- | ---: | ---: | ---: | ---: |")
    for key, metric in metrics.items():
        pair = [[rows.double() for rows in found[name][key]] for name in ("the authors' outputs", "bicubic")]
        step = contributions["the authors' outputs"][key] - contributions["bicubic"][key]
        drawn = bootstrap(*pair, metric, draws=40)
        print(f"| {key} | {step.mean():.4f} | {error(step):.4f} | {drawn.std(ddof=1):.4f} | {drawn.mean() - step.mean():.4f} |", flush=True)

    print("\n| metric | CPU seconds per 100 pictures, one thread |\n| --- | ---: |")
    calls = sum(len(group) for group in groups(root).values()) * num
    for key in metrics:
        print(f"| {key} | {100 * seconds[key] / calls:.1f} |")
    singles: dict[str, ImageMetric] = {"niqe": NIQE(), "st_lpips": STLPIPS()}
    some = list(originals.items())[:8]
    for key, single in singles.items():
        started = time.process_time()
        for name, hq in some:
            single.per_image(tensor(groups(root)["restored"]["bicubic"](hq, name)), tensor(hq))
        print(f"| {key}, for comparison | {100 * (time.process_time() - started) / len(some):.1f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100)
