"""A slow, straightforward two-stage degradation in torch, written from the recipe: the yardstick of the fast one.

Nothing here is shared with the package. Pictures are (1, 3, H, W) float32 in [0, 1]; the figures are OSEDiff's.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import j1

MODES = ("area", "bilinear", "bicubic")
SIZES = (7, 9, 11, 13, 15, 17, 19, 21)
FIRST = {
    "sigma": (0.2, 3.0), "blur": 1.0, "jpeg": (30, 95),
    "directions": (0.2, 0.7, 0.1), "factor": (0.15, 1.5), "gauss": (1, 30), "poisson": (0.05, 3.0),
}  # fmt: skip
SECOND = {
    "sigma": (0.2, 1.5), "blur": 0.8, "jpeg": (30, 95),
    "directions": (0.3, 0.4, 0.3), "factor": (0.3, 1.2), "gauss": (1, 25), "poisson": (0.05, 2.5),
}  # fmt: skip
LUMA_ROWS = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
LUMA = np.array(LUMA_ROWS.split(), dtype=np.float64).reshape(8, 8).T
CHROMA = np.full((8, 8), 99.0)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def sinc_kernel(size: int, omega: float) -> np.ndarray:
    c = (size - 1) / 2
    kernel = np.empty((size, size))
    for row in range(size):
        for column in range(size):
            r = math.hypot(row - c, column - c)
            kernel[row, column] = omega * j1(omega * r) / (2 * math.pi * r) if r else omega**2 / (4 * math.pi)
    return kernel / kernel.sum()


def bell_kernel(size: int, family: int, sigma: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    s1 = rng.uniform(*sigma)
    s2, theta = (rng.uniform(*sigma), rng.uniform(-math.pi, math.pi)) if family % 2 else (s1, 0.0)
    turn = np.array([[math.cos(theta), -math.sin(theta)], [math.sin(theta), math.cos(theta)]])
    inverse = np.linalg.inv(turn @ np.diag([s1**2, s2**2]) @ turn.T)
    u = np.stack(np.meshgrid(np.arange(size) - size // 2, np.arange(size) - size // 2), -1)
    d = np.einsum("hwi,ij,hwj->hw", u, inverse, u)
    low, high = ((1, 1), (0.5, 4.0), (1.0, 2.0))[family // 2]
    beta = rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high)
    kernel = 1 / (d**beta + 1) if family >= 4 else np.exp(-0.5 * d**beta)
    return kernel / kernel.sum()


def stage_kernel(sigma: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    size = int(rng.choice(SIZES))
    if rng.random() < 0.1:
        return sinc_kernel(size, rng.uniform(math.pi / 3 if size < 13 else math.pi / 5, math.pi))
    return bell_kernel(size, int(rng.choice(6, p=[0.45, 0.25, 0.12, 0.03, 0.12, 0.03])), sigma, rng)


def filter2d(x: torch.Tensor, kernel: np.ndarray) -> torch.Tensor:
    pad = kernel.shape[0] // 2
    weight = torch.from_numpy(kernel).float().expand(3, 1, -1, -1)
    return F.conv2d(F.pad(x, (pad,) * 4, mode="reflect"), weight, groups=3)


def jpeg(x: torch.Tensor, quality: float) -> torch.Tensor:
    """Block by block in float64: 4:2:0 by averages and repetition, black padding to multiples of 16, float tables."""
    factor = 50 / quality if quality < 50 else 2 - quality / 50
    height, width = x.shape[2:]
    rgb = F.pad(x, (0, -width % 16, 0, -height % 16)).double() * 255
    r, g, b = rgb[0]
    y = 0.299 * r + 0.587 * g + 0.114 * b
    cb = -0.168736 * r - 0.331264 * g + 0.5 * b + 128
    cr = 0.5 * r - 0.418688 * g - 0.081312 * b + 128
    y = _code(y, LUMA * factor)
    cb, cr = (_repeat(_code(F.avg_pool2d(c[None], 2)[0], CHROMA * factor)) - 128 for c in (cb, cr))
    out = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb])[None]
    return (out.clamp(0, 255) / 255)[..., :height, :width].float()


def _repeat(c: torch.Tensor) -> torch.Tensor:
    return c.repeat_interleave(2, 0).repeat_interleave(2, 1)


def _code(plane: torch.Tensor, table: np.ndarray) -> torch.Tensor:
    n = torch.arange(8, dtype=torch.float64)
    D = torch.cos((2 * n[None, :] + 1) * n[:, None] * math.pi / 16) / 2
    D[0] /= math.sqrt(2)
    q = torch.from_numpy(table)
    out = torch.empty_like(plane)
    for i in range(0, plane.shape[0], 8):
        for j in range(0, plane.shape[1], 8):
            coefficients = D @ (plane[i : i + 8, j : j + 8] - 128) @ D.T
            out[i : i + 8, j : j + 8] = D.T @ (torch.round(coefficients / q) * q) @ D + 128
    return out


def add_noise(x: torch.Tensor, stage: dict, rng: np.random.Generator) -> torch.Tensor:
    torch_rng = torch.Generator().manual_seed(int(rng.integers(2**62)))
    gaussian, gray = rng.random() < 0.5, rng.random() < 0.4
    if gaussian:
        shape = (1, 1, *x.shape[2:]) if gray else x.shape
        return (x + torch.randn(shape, generator=torch_rng) * rng.uniform(*stage["gauss"]) / 255).clamp(0, 1)
    source = (x * torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True) if gray else x
    source = (source * 255).round().clamp(0, 255) / 255
    peak = 2 ** math.ceil(math.log2(len(torch.unique(source))))
    noise = torch.poisson(source * peak, generator=torch_rng) / peak - source
    return (x + noise * rng.uniform(*stage["poisson"])).clamp(0, 1)


def draw_factor(stage: dict, rng: np.random.Generator) -> float:
    direction = rng.choice(3, p=stage["directions"])
    return (rng.uniform(1, stage["factor"][1]), rng.uniform(stage["factor"][0], 1), 1.0)[direction]


def degrade(hq: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return lq (H, W, 3) for hq (H, W, 3), scale 4."""
    x = torch.from_numpy(hq).permute(2, 0, 1)[None]
    height, width = x.shape[2:]

    def small(z: torch.Tensor) -> torch.Tensor:
        z = F.interpolate(z, size=(height // 4, width // 4), mode=str(rng.choice(MODES)))
        if rng.random() < 0.8:
            z = filter2d(z, sinc_kernel(int(rng.choice(SIZES)), rng.uniform(math.pi / 3, math.pi)))
        return z

    def code(z: torch.Tensor, stage: dict) -> torch.Tensor:
        return jpeg(z.clamp(0, 1), rng.uniform(*stage["jpeg"]))

    x = filter2d(x, stage_kernel(FIRST["sigma"], rng))
    x = F.interpolate(x, scale_factor=float(draw_factor(FIRST, rng)), mode=str(rng.choice(MODES)))
    x = code(add_noise(x, FIRST, rng), FIRST)
    if rng.random() < SECOND["blur"]:
        x = filter2d(x, stage_kernel(SECOND["sigma"], rng))
    factor = draw_factor(SECOND, rng)
    x = F.interpolate(x, size=(int(height / 4 * factor), int(width / 4 * factor)), mode=str(rng.choice(MODES)))
    x = add_noise(x, SECOND, rng)
    x = code(small(x), SECOND) if rng.random() < 0.5 else small(code(x, SECOND))
    x = F.interpolate(x, size=(height, width), mode=str(rng.choice(MODES)))
    return ((x * 255).round().clamp(0, 255) / 255)[0].permute(1, 2, 0).numpy()
