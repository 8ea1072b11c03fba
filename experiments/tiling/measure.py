"""How near do tiles come to the untiled result, what should they share, and what does it cost? See README.md."""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from osediff_exp.checkpoints.loading import load_checkpoint
from osediff_exp.diffusion import predict_x0
from osediff_exp.models.generator import OneStepGenerator
from osediff_exp.models.miniature import edges_repeated, miniature
from osediff_exp.models.shared_attention import SharedAttention
from osediff_exp.models.shared_norms import SharedNorms
from osediff_exp.models.tiled_vae import vae_factor
from osediff_exp.models.tiling import Span, Tiling, blend_tiles, gaussian_window, ramp_window, spans
from osediff_exp.runtime import prepare_process, quiet_libraries

PHOTOS = ("palapeli-data_castle-maintenon_0", "mate-backgrounds_TwoWings_1", "palapeli-data_european-honey-bee_1")
SMALL = Tiling(encoder_tile=256, encoder_overlap=64, decoder_tile=64, decoder_overlap=16, unet_tile=64, unet_overlap=16)
Row = dict[str, float | int | str]


def low_quality(path: Path, side: int) -> Tensor:
    """Return the photo's middle, side / 4 pixels square, enlarged to ``side`` by Pillow's bicubic: (1, 3, side, side) in [-1, 1]."""
    photo = Image.open(path).convert("RGB")
    left, top = ((length - side // 4) // 2 for length in photo.size)
    photo = photo.crop((left, top, left + side // 4, top + side // 4)).resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 127.5 - 1


def load(checkpoint: str) -> tuple[OneStepGenerator, Tensor]:
    loaded = load_checkpoint(checkpoint)
    assert isinstance(loaded.generator, OneStepGenerator)
    generator = loaded.generator.eval()
    prompt = loaded.prompts(torch.zeros(1, 3, 8, 8), ["photo"])
    return generator, loaded.backbone.encode_prompts(prompt)


def restored(generator: OneStepGenerator, lq: Tensor, embeds: Tensor) -> tuple[Tensor, float]:
    """Return the picture and the processor seconds it took: other jobs on the machine do not count."""
    started = time.process_time()
    return generator(lq, embeds).image, time.process_time() - started


def distance(tiled: Tensor, whole: Tensor) -> Row:
    difference = 127.5 * (tiled - whole)
    return {"mean": float(difference.abs().mean()), "bias": float(difference.mean()), "largest": float(difference.abs().max())}


# ---- what a network's tiles should share


@contextmanager
def pooled_norms(network: nn.Module, walk: Callable[[], object]) -> Iterator[None]:
    """Statistics pooled from tiles that are normalised each by its own: a first pass over all tiles."""
    norms = SharedNorms(network)
    sums: dict[nn.GroupNorm, Tensor] = {}

    def collect(layer: nn.GroupNorm, inputs: tuple[Tensor], _: Tensor) -> None:
        x = inputs[0].double().reshape(layer.num_groups, -1)
        sums[layer] = sums.get(layer, 0) + torch.stack([x.sum(1), x.square().sum(1), torch.full((len(x),), x.shape[1]).double()])

    hooks = [layer.register_forward_hook(collect) for layer in norms.layers]
    walk()
    for hook in hooks:
        hook.remove()
    for layer, (total, squares, number) in sums.items():
        mean = total / number
        norms.moments[layer] = mean.float(), (squares / number - mean.square()).float()
    with norms.applied():
        yield


def mosaic(source: Tensor, *, side: int, count: int, multiple: int) -> Tensor:
    """Return count x count crops of a picture, each in the middle of an equal share of it."""
    length = source.shape[-1]
    starts = [((2 * k + 1) * length // (2 * count) - side // 2) // multiple * multiple for k in range(count)]
    return torch.cat([source[..., top : top + side, left : left + side] for top in starts for left in starts])


@dataclass(frozen=True)
class Stage:
    """A network, one call of it, its input, the untiled output, and where the tiles of ``tile`` input pixels lie."""

    name: str
    network: nn.Module
    call: Callable[[Tensor], Tensor]
    source: Tensor
    whole: Tensor
    places: list[Span]
    tile: int
    step: int  # input pixels per latent pixel

    def walk(self) -> Tensor:
        return blend_tiles(self.call, self.source, canvas=torch.zeros_like(self.whole), rows=self.places, columns=self.places)

    def sample(self, method: str) -> Tensor:
        if method.startswith("mosaic"):
            return mosaic(self.source, side=16 * self.step, count=self.tile // (16 * self.step), multiple=4 * self.step)
        return miniature(self.source, tile=self.tile, multiple=4 * self.step)

    @contextmanager
    def sharing(self, method: str) -> Iterator[None]:
        norms, attention = SharedNorms(self.network), SharedAttention(self.network)
        with ExitStack() as stack:
            if method == "pooled":
                stack.enter_context(pooled_norms(self.network, self.walk))
            elif method != "own":
                with norms.measured(), ExitStack() as measuring:
                    if "zeros" not in method:
                        measuring.enter_context(edges_repeated(self.network))
                    if "attention" in method:
                        measuring.enter_context(attention.measured())
                    self.call(self.sample(method))
                stack.enter_context(norms.applied())
                if "attention" in method:
                    # Tile sizes as they are on the latents' grid: the U-Net's are equal to its input's.
                    ratio = (self.source.shape[-1] / self.places[0].size) ** 2
                    stack.enter_context(attention.applied(ratio=ratio))
            yield

    def error(self, tiled: Tensor) -> float:
        """Return the mean absolute difference: of pictures in 1/255, of latents in percent of their standard deviation."""
        if self.name == "decoder":
            return float(127.5 * (tiled.clamp(-1, 1) - self.whole.clamp(-1, 1)).abs().mean())
        return float(100 * (tiled - self.whole).abs().mean() / self.whole.std())


def stages(generator: OneStepGenerator, embeds: Tensor, lq: Tensor) -> Iterator[tuple[Stage, tuple[str, ...]]]:
    """Yield each network with the methods to compare: 64 latent pixels a tile, 16 of overlap."""
    vae, unet, scale = generator.vae, generator.unet, generator.scaling_factor
    factor, side = vae_factor(vae), lq.shape[-1]

    def encode(x: Tensor) -> Tensor:
        return vae.encode(x).latent_dist.mean

    def predict(x: Tensor) -> Tensor:
        return unet(x, torch.full((len(x),), generator.timestep), embeds.expand(len(x), -1, -1)).sample

    def decode(x: Tensor) -> Tensor:
        return vae.decode(x).sample

    latent = spans(side // factor, tile=64, overlap=16, multiple=4, window=ramp_window)
    gauss = spans(side // factor, tile=64, overlap=16, multiple=4, window=gaussian_window)
    pixel = spans(side, tile=64 * factor, overlap=16 * factor, multiple=4 * factor, window=ramp_window)
    methods = ("own", "pooled", "mosaic", "miniature, zeros at edges", "miniature")
    z = encode(lq)
    yield Stage("encoder", vae.encoder, encode, lq, z, latent, 64 * factor, factor), methods
    z = z * scale
    eps = predict(z)
    shared = ("own", "pooled", "miniature", "mosaic with attention", "miniature with attention")
    yield Stage("unet", unet, predict, z, eps, gauss, 64, 1), shared
    z_hat = predict_x0(z, eps, generator._abar, generator.prediction_type) / scale
    yield Stage("decoder", vae.decoder, decode, z_hat, decode(z_hat), pixel, 64, 1), methods


def compare_methods(generator: OneStepGenerator, embeds: Tensor, photos: list[Path], side: int) -> list[Row]:
    rows: list[Row] = []
    generator.tiling = None
    for photo in photos:
        for stage, methods in stages(generator, embeds, low_quality(photo, side)):
            for method in methods:
                started = time.process_time()
                with stage.sharing(method):
                    tiled = stage.walk()
                spent = time.process_time() - started
                row: Row = {"part": stage.name, "photo": photo.stem, "side": side, "method": method}
                rows.append(row | {"mean": stage.error(tiled), "seconds": spent})
                print(rows[-1], flush=True)
    return rows


# ---- the whole generator


def step_ratio(image: Tensor, lines: list[int]) -> float:
    """Return the mean absolute step across ``lines``, rows and columns, over the mean absolute step elsewhere."""
    ratios = []
    for axis, other in ((2, 3), (3, 2)):
        steps = image.diff(dim=axis).abs().mean(dim=(0, 1, other))
        at_line = torch.zeros(len(steps), dtype=torch.bool)
        at_line[[line - 1 for line in lines]] = True
        ratios.append(float(steps[at_line].mean() / steps[~at_line].mean()))
    return sum(ratios) / 2


def border_lines(side: int, tiling: Tiling, factor: int) -> list[int]:
    """Return where the VAE's tiles begin, gain weight, have all of it or end, and where the U-Net's begin, end or meet."""
    encoder, decoder = tiling.encoder_overlap, tiling.decoder_overlap * factor
    lines = set()
    for tile, overlap, window in (
        (tiling.encoder_tile, encoder, ramp_window),
        (tiling.decoder_tile * factor, decoder, ramp_window),
        (tiling.unet_tile * factor, tiling.unet_overlap * factor, gaussian_window),
    ):
        found = spans(side, tile=tile, overlap=overlap, multiple=4 * factor, window=window)
        for a, b in pairwise(found):
            lines |= {b.start, b.start + overlap // 3, b.start + 2 * overlap // 3, a.stop, (b.start + a.stop) // 2}
    return sorted(lines)


def compare_generator(
    generator: OneStepGenerator, embeds: Tensor, photos: list[Path], side: int, tilings: dict[str, Tiling], pictures: Path | None
) -> list[Row]:
    rows: list[Row] = []
    factor = vae_factor(generator.vae)
    for photo in photos:
        lq = low_quality(photo, side)
        generator.tiling = None
        whole, untiled_seconds = restored(generator, lq, embeds)
        for name, tiling in tilings.items():
            generator.tiling = tiling
            tiled, tiled_seconds = restored(generator, lq, embeds)
            lines = border_lines(side, tiling, factor)
            rows.append({"part": "generator", "photo": photo.stem, "side": side, "method": name, "seconds": tiled_seconds})
            rows[-1] |= {"untiled_seconds": untiled_seconds} | distance(tiled, whole)
            rows[-1] |= {"steps_untiled": step_ratio(whole, lines), "steps_tiled": step_ratio(tiled, lines)}
            rows[-1]["steps_difference"] = step_ratio(tiled - whole, lines)
            print(rows[-1], flush=True)
            if pictures is not None:
                save(whole, tiled, pictures / f"{photo.stem}_{side}_{name.replace(' ', '_')}.png")
    generator.tiling = None
    return rows


def save(whole: Tensor, tiled: Tensor, path: Path) -> None:
    """Write both pictures and eight times their difference, side by side, for the eye."""
    path.parent.mkdir(parents=True, exist_ok=True)
    three = torch.cat([whole, tiled, (8 * (tiled - whole)).clamp(-1, 1)], dim=3)
    Image.fromarray(((three[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()).save(path)


# ---- memory


def measure_memory(checkpoint: str, side: int) -> None:
    """Print this process's peak memory in bytes after one picture; run in a process of its own."""
    generator, embeds = load(checkpoint)
    generator.tiling = SMALL
    lq = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).mul_(2).sub_(1)
    generator(lq, embeds)
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def memory_rows(checkpoint: str, sides: list[int]) -> list[Row]:
    rows: list[Row] = []
    for side in sides:
        command = [sys.executable, __file__, "--checkpoint", checkpoint, "--memory", str(side)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peak = int(output.split("PEAK")[1])
        rows.append({"part": "memory", "side": side, "method": "small tiles", "peak_mib": peak / 2**20})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", required=True, help="a checkpoint of a tiny generator")
    parser.add_argument("--photos", type=Path, help="folder of photos of at least 512 px")
    parser.add_argument("--parts", default="methods,small,default,memory")
    parser.add_argument("--side", type=int, default=1536, help="of the picture with the default tiles")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results.csv"))
    parser.add_argument("--pictures", type=Path, help="folder for untiled, tiled and 8 times their difference, side by side")
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    quiet_libraries()
    if arguments.memory:
        measure_memory(arguments.checkpoint, arguments.memory)
        return
    prepare_process(seed=0)
    generator, embeds = load(arguments.checkpoint)
    photos = [arguments.photos / f"{name}.jpg" for name in PHOTOS] if arguments.photos else []
    rows: list[Row] = []
    for part in arguments.parts.split(","):
        if part == "methods":
            rows += [row for side in (384, 768) for row in compare_methods(generator, embeds, photos, side)]
        elif part == "small":
            alone = Tiling(**{**vars(SMALL), "unet_shared": False})
            rows += compare_generator(
                generator, embeds, photos, 384, {"small tiles": SMALL, "small tiles, U-Net alone": alone}, arguments.pictures
            )
        elif part == "default":
            tilings = {"default": Tiling(), "default, U-Net alone": Tiling(unet_shared=False)}
            rows += compare_generator(generator, embeds, photos[:1], arguments.side, tilings, arguments.pictures)
        elif part == "memory":
            rows += memory_rows(arguments.checkpoint, [768, 1536, 3072])
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()} for row in rows)


if __name__ == "__main__":
    main()
