"""The training step against the plain one, on the CPU: seconds in turns, memory in processes of their own."""

from __future__ import annotations

import multiprocessing
import statistics
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from osediff_exp.errors import UserError
from osediff_exp.methods.osediff import OSEDiff
from osediff_exp.models.backbone import Backbone
from osediff_exp.models.cpu_kernels import suit_cpu
from osediff_exp.models.lean_layers import lean_layers
from osediff_exp.runtime import peak_memory_gib, prepare_process, quiet_libraries
from osediff_exp.tasks.benchmark.side_by_side import Pair, seconds_of, side_by_side
from osediff_exp.tasks.benchmark.steps import OurStep, PlainStep, StepInputs, random_inputs
from osediff_exp.tasks.methods import build_method
from osediff_exp.tasks.precision import CPU_PRECISIONS, MIXED, autocast, with_precision
from osediff_exp.tasks.train import build_data

Way = Literal["plain", "ours"]
_WAYS: tuple[Way, ...] = ("plain", "ours")
MEMORY_STEPS = 2
MEMORY_RUNS = 3  # the same step's peak differs by some percent from process to process


def comparable(config: DictConfig) -> str | None:
    """Return why this configuration has no plain step beside it, or None."""
    if config.method.name != "osediff":
        return f"method={config.method.name} is not the released code's"
    if config.trainer.precision not in CPU_PRECISIONS:
        return f"both are measured on the CPU, which has no trainer.precision={config.trainer.precision}"
    others = [name for name, term in config.loss.terms.items() if term is not None and "optimizer" in term and name != "vsd"]
    return f"the released code has no term {', '.join(others)}" if others else None


def on_cpu(config: DictConfig) -> DictConfig:
    """Return the configuration for the CPU, where the compared steps run: ``trainer.precision=auto`` then means the CPU's."""
    merged = OmegaConf.merge(config, {"trainer": {"accelerator": "cpu"}})
    assert isinstance(merged, DictConfig)
    return merged


def compare_steps(config: DictConfig, run_dir: Path) -> Pair:
    """Return the seconds of a step, both ways, on one batch of the configured training stream; ours in ``trainer.precision``."""
    backbone, method = _parts(config, run_dir)
    inputs = step_inputs(config, run_dir)
    config = with_precision(on_cpu(config), backbone)
    steps = {way: _step(way, config, method, backbone) for way in _WAYS}
    return side_by_side(lambda: steps["plain"](inputs, 0), lambda: steps["ours"](inputs, 0), rounds=config.benchmark.num_rounds)


def step_inputs(config: DictConfig, run_dir: Path) -> StepInputs:
    """Return the first batch of the configured training stream, with constant prompts."""
    data = build_data(config, run_dir)
    data.num_workers = 0
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    return StepInputs(
        lq=2 * batch["lq"] - 1,
        hq=2 * batch["hq"] - 1,
        prompts=[config.prompt.positive] * len(batch["index"]),
        negative_prompt=config.prompt.negative,
        seed=config.seed,
        indices=batch["index"].tolist(),
    )


def _parts(config: DictConfig, run_dir: Path) -> tuple[Backbone, OSEDiff]:
    backbone = instantiate(config.backbone.loader)
    method = build_method(config, backbone, run_dir)
    assert isinstance(method, OSEDiff)
    return backbone, method


def _step(way: Way, config: DictConfig, method: OSEDiff, backbone: Backbone) -> OurStep | PlainStep:
    if way == "plain":  # in float32, as released
        return PlainStep(method, backbone, clip_norm=config.trainer.clip_norm)
    lean_layers(backbone.unet, backbone.vae, method)
    if config.trainer.precision == MIXED:
        suit_cpu(backbone.unet, backbone.vae, method)
    return OurStep(method, backbone, clip_norm=config.trainer.clip_norm, precision=autocast(config))


class StepCost(NamedTuple):
    """What a training step takes: GiB that a process grows by from before its weights are there to the peak of its steps (what the
    libraries themselves take is left out), and the seconds of its last step."""

    gib: float
    seconds: float


def compare_memory(config: DictConfig, run_dir: Path) -> dict[Way, float]:
    """Return the GiB of a step's process, both ways: medians of processes."""
    grown: dict[Way, list[float]] = {"plain": [], "ours": []}
    for _ in range(MEMORY_RUNS):
        for way, figures in grown.items():
            figures.append(step_cost(config, run_dir, way).gib)
    return {way: statistics.median(figures) for way, figures in grown.items()}


def step_cost(config: DictConfig, run_dir: Path, way: Way, *, random: tuple[int, int] | None = None) -> StepCost:
    """Return what a step takes in a process of its own.

    Args:
        random: how many pictures of random pixels, and their side, in place of the first batch of the training stream.
    """
    plain: Any = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure_step, args=(plain, str(run_dir), way, random, sender))
    process.start()
    sender.close()
    try:
        return StepCost(*receiver.recv())
    except EOFError as error:
        raise UserError("a training step cannot be measured: its process ended early, as one does that runs out of memory") from error
    finally:
        process.join()


def _measure_step(plain: dict[str, Any], run_dir: str, way: Way, random: tuple[int, int] | None, sender: Any) -> None:
    quiet_libraries()
    prepare_process(seed=plain["seed"])
    torch.set_num_threads(1)
    config = on_cpu(OmegaConf.create(plain))
    before = _resident_gib("RssAnon")
    backbone, method = _parts(config, Path(run_dir))
    inputs = random_inputs(*random, seed=config.seed) if random else step_inputs(config, Path(run_dir))
    step = _step(way, with_precision(config, backbone), method, backbone)
    if way == "plain":
        del method
    seconds = [seconds_of(partial(step, inputs, k)) for k in range(MEMORY_STEPS)]
    peak = peak_memory_gib("cpu")
    assert peak is not None  # the first run of its process
    # Files mapped into memory are the libraries' code, of which the steps touch more: it counts towards the peak alone.
    sender.send((peak - _resident_gib("RssFile") - before, seconds[-1]))


def _resident_gib(kind: Literal["RssAnon", "RssFile"]) -> float:
    """Return this process's resident memory of a kind (man proc_pid_status) now, in GiB; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    line = next((line for line in status.read_text().splitlines() if line.startswith(kind)), "kind 0")
    return int(line.split()[1]) / 2**20


def backbone_problem(config: DictConfig) -> str | None:
    """Return why the backbone's weights cannot be had, or None."""
    try:
        instantiate(config.backbone.loader)
    except InstantiationException as error:
        if not isinstance(error.__cause__, UserError):
            raise
        return str(error.__cause__)
    return None
