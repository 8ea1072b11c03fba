"""Run folders of a made-up sweep, with pictures cropped from scikit-image's sample photos."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import yaml
from PIL import Image, ImageFilter

Figures = dict[str, float]


def photo(name: str, corner: tuple[int, int], size: int = 128) -> Image.Image:
    """Return a crop of a photo inside the scikit-image package."""
    left, top = corner
    with Image.open(Path(skimage.__file__).parent / "data" / name) as image:
        return image.convert("RGB").crop((left, top, left + size, top + size))


def crops(count: int) -> dict[str, Image.Image]:
    """Return ``count`` distinct crops."""
    corners = [(160, 60), (60, 160), (300, 40), (200, 300), (40, 20), (330, 250)]
    photos = ["astronaut.png", "coffee.png"]
    return {f"{photos[i % 2][:-4]}_{i:02d}": photo(photos[i % 2], corners[i // 2]) for i in range(count)}


def make_run(
    sweep: Path,
    number: int,
    overrides: list[str],
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
    config: dict[str, Any] | None = None,
    steps: int = 0,
    pictures: dict[str, Image.Image] | None = None,
    blur: float = 1.0,
    folder: str | None = None,
) -> Path:
    """Write one run folder the way the training task does and return it."""
    run = sweep / (folder or f"{number}_{','.join(text.lstrip('+') for text in overrides)}")
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if config is not None:
        (run / "config.yaml").write_text(yaml.safe_dump(config))
    if result is not None:
        (run / "result.json").write_text(json.dumps(result))
    if error is not None:
        (run / "error.txt").write_text(error)
    if steps:
        write_metrics(run / "metrics.csv", steps, blur)
    write_pictures(run, pictures or {}, blur, result is not None)
    return run


def write_metrics(path: Path, steps: int, blur: float) -> None:
    """Write noisy falling losses at every step and validation metrics at every tenth part."""
    rng = np.random.default_rng(int(blur * 100))
    keys = ["step", "train/loss", "train/mse", "train/vsd", "train/vsd_grad_norm", "train/score_loss", "train/lr", "val/psnr", "val/niqe"]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(keys)
        for step in range(1, steps + 1):
            fall = math.exp(-3 * step / steps)
            noise = rng.lognormal(0, 0.25, 5)
            train = [fall + blur * 0.2, 0.1 * fall, 2 * fall, 400 * fall**2 + 0.01, 0.3 + 0.2 * fall] * noise
            val = [24 + 3 * (1 - fall) - blur, 6 - blur + fall] if step % max(1, steps // 10) == 0 else ["", ""]
            writer.writerow([step, *(f"{value:.6g}" for value in train), 5e-5, *val])


def write_pictures(run: Path, pictures: dict[str, Image.Image], blur: float, final: bool) -> None:
    """Write inputs and (blurred) outputs as a validation at step 100 does: into images/output and images/steps, ended or not."""
    for kind in ("lq", "bicubic", "hq", "output", "steps/000100") if pictures else ():
        (run / "images" / kind).mkdir(parents=True)
    for name, hq in pictures.items():
        small = hq.filter(ImageFilter.GaussianBlur(1)).resize((hq.width // 4, hq.height // 4))
        hq.save(run / "images" / "hq" / f"{name}.png")
        small.resize(hq.size, Image.Resampling.NEAREST).save(run / "images" / "lq" / f"{name}.png")
        small.resize(hq.size, Image.Resampling.BICUBIC).save(run / "images" / "bicubic" / f"{name}.png")
        for output in ("output", "steps/000100"):
            hq.filter(ImageFilter.GaussianBlur(blur)).save(run / "images" / output / f"{name}.png")
    if pictures and final:
        write_per_image(run, {name: [25 - blur, 0.7, 5.5, 0.3] for name in pictures})


def write_per_image(run: Path, rows: dict[str, list[float]]) -> None:
    """Write psnr, ssim, niqe and st_lpips per picture, with the same bicubic figures for all."""
    keys = ["psnr", "ssim", "niqe", "st_lpips"]
    with (run / "per_image.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *keys, *(f"bicubic_{key}" for key in keys)])
        writer.writerows([name, *values, 23.5, 0.66, 8.1, 0.41] for name, values in rows.items())


def result(psnr: float, ssim: float, niqe: float, st_lpips: float, **more: Any) -> dict[str, Any]:
    """Return the figures of a finished training."""
    figures = {"task": "train", "seconds": 754.2, "version": "0.1.0", "commit": "1a2b3c4", "steps": 600, "images_per_second": 3.217}
    figures |= {"trainable_parameters": 4437000, "psnr": psnr, "ssim": ssim, "niqe": niqe, "st_lpips": st_lpips}
    bicubic = {"bicubic_psnr": 23.5, "bicubic_ssim": 0.66, "bicubic_niqe": 8.1, "bicubic_st_lpips": 0.41}
    return figures | bicubic | {"machine": "2 cores"} | more


def config(**values: Any) -> dict[str, Any]:
    """Return a config with a loss, a seed, a folder name and report settings."""
    return {
        "lambda1": 2,
        "lambda2": values.pop("lambda2", 1),
        "seed": 123,
        "loss": {"terms": values.pop("terms", ["mse", "lpips"])},
    } | values


def make_sweep(sweep: Path, *, pictures: int = 2, steps: int = 60) -> Path:
    """Write two finished arms, a failed and an unfinished one, and ``multirun.yaml``."""
    shown = crops(pictures)
    report = {
        "title": "What VSD does",
        "question": "Does <VSD> & friends help?",
        "labels": {"lambda2=0": "without VSD", "lambda2=1": "with VSD"},
    }
    for number, (value, figures, blur) in enumerate(
        [(0, result(25.94, 0.741, 6.31, 0.342), 1.6), (1, result(25.15, 0.7341, 5.02, 0.291), 0.6)]
    ):
        settings = config(lambda2=value, report=report)
        make_run(
            sweep,
            number,
            ["+experiment=vsd_ablation", f"lambda2={value}"],
            result=figures,
            config=settings,
            steps=steps,
            pictures=shown,
            blur=blur,
        )
    failed = config(lambda2=8, report=report)
    error = "out of memory at step 12\nlambda2=8 diverged: the loss is not finite at step 40; lower lambda2"
    make_run(sweep, 2, ["+experiment=vsd_ablation", "lambda2=8"], error=error, config=failed, steps=max(2, steps // 2), blur=2.0)
    unfinished = config(lambda2=2, report=report)
    make_run(sweep, 3, ["+experiment=vsd_ablation", "lambda2=2"], config=unfinished, steps=max(2, steps // 3), pictures=shown, blur=1.1)
    hydra = {"overrides": {"hydra": ["hydra.mode=MULTIRUN"], "task": ["+experiment=vsd_ablation", "lambda2=0,1,8,2"]}}
    (sweep / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    return sweep


def make_seed_sweep(sweep: Path, *, seeds: int = 3, images: int = 12, pictures: int = 3) -> Path:
    """Write two arms of ``seeds`` runs: the second has a lower PSNR on every picture, a lower NIQE, and the same SSIM but for noise."""
    report: dict[str, Any] = {"title": "VSD over seeds", "question": "Is what VSD changes more than chance?"}
    report |= {"labels": {"lambda2=0": "without VSD", "lambda2=1": "with VSD"}}
    report |= {"published": {"without VSD": "T3/without VSD", "with VSD": "T3/VSD in latent space"}}
    shown = crops(pictures)
    for number, (value, seed) in enumerate((value, seed) for value in (0, 1) for seed in range(1, seeds + 1)):
        rng = np.random.default_rng(1000 * value + seed)
        noise = rng.normal(size=(images, 4)) * [0.1, 0.004, 0.15, 0.004]
        hard = np.random.default_rng(7).normal(size=(images, 1)) * [2.0, 0.05, 0.8, 0.05]  # shared: some pictures are harder
        table = np.array([26.2 - 0.6 * value, 0.72, 6.4 - 1.1 * value, 0.34 - 0.003 * value]) + hard + noise + rng.normal(size=4) * 0.02
        rows = {f"{name}": list(map(float, line)) for name, line in zip([*shown, *map(str, range(images))], table, strict=False)}
        figures = result(*map(float, table.mean(axis=0)), seconds=700.0 + 20 * seed + 300 * value, num_val_images=images)
        run = make_run(
            sweep,
            number,
            ["+experiment=vsd_ablation", f"lambda2={value}", f"seed={seed}"],
            result=figures,
            config=config(lambda2=value, report=report) | {"seed": seed, "sampler": {"seed": seed}, "out": f"runs/{number}_vsd"},
            folder=f"{number}_vsd",
            steps=60,
            pictures=shown,
            blur=1.6 - value + 0.1 * seed,
        )
        write_per_image(run, rows)
    hydra = {"overrides": {"hydra": ["hydra.mode=MULTIRUN"], "task": ["+experiment=vsd_ablation", "lambda2=0,1", "seed=1,2,3"]}}
    (sweep / "multirun.yaml").write_text(yaml.safe_dump({"hydra": hydra}))
    return sweep
