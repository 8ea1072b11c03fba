"""Which weights can be had: the backbone's, from its sources in order, those of the perceptual distances and of Real-ESRGAN."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from osediff_exp.errors import UserError
from osediff_exp.tasks.doctor.check import Check, Status, first_line
from osediff_exp.tasks.doctor.files import cache_folders, is_writable
from osediff_exp.tasks.doctor.services import ask_all, ask_for

_MARKER = "unet/config.json"
_CONFIGS = (_MARKER, "vae/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json")
_TRUNKS = "https://download.pytorch.org/models/"
_DISTANCES = {
    "lpips": ("osediff_exp.losses.lpips.LPIPSLoss", "osediff_exp.metrics.lpips.LPIPS"),
    "st_lpips": (
        "osediff_exp.losses.st_lpips.STLPIPSLoss",
        "osediff_exp.losses.edge_st_lpips.EdgeSTLPIPSLoss",
        "osediff_exp.metrics.st_lpips.STLPIPS",
    ),
}
_REMEDY = "pass a folder in diffusers layout, backbone.loader.sources=[FOLDER], or give this machine a way to the hub"


@dataclass(frozen=True)
class Found:
    """One source of the backbone as it stands on this machine: its folder (None: nothing here), what that lacks, and the reason."""

    folder: Path | None
    missing: list[str]
    fault: str = ""
    is_repository: bool = False

    @property
    def is_complete(self) -> bool:
        """Everything is here."""
        return self.folder is not None and not self.missing


def backbone(config: DictConfig, run_dir: Path) -> Check:
    """Which source will the backbone come from? As in loading it, the first that has a model is taken, complete or not."""
    loader = config.backbone.loader
    states = {text: look(text, revision=loader.revision, variant=loader.variant) for text in loader.sources}
    before = takewhile(lambda text: not states[text].is_complete, states)
    repositories = [text for text in before if states[text].is_repository and not loader.local_files_only]
    faults = ask_all({text: partial(_ask_hub, text, loader.revision) for text in repositories})
    tried: list[str] = []
    for text, state in states.items():
        status, line = _verdict(text, state, faults.get(text, state.fault), on_hub=faults.get(text) == "")
        if status is not None:
            return Check("backbone", status, "; ".join([*tried, line]), "" if status == "ok" else _REMEDY)
        tried.append(line)
    return Check("backbone", "error", "; ".join(tried) or "backbone.loader.sources is empty", _REMEDY)


def _verdict(text: str, state: Found, fault: str, *, on_hub: bool) -> tuple[Status | None, str]:
    """Return how it stands with a source, and None where the next one will be tried."""
    if state.is_complete:
        return "ok", f"{text}: complete in {state.folder}"
    if on_hub and is_writable(next(iter(cache_folders().values()))):
        return "ok", f"{text}: on the hub, will be downloaded at first use"
    if on_hub:
        return "error", f"{text}: on the hub, but the cache is not writable (see caches)"
    if state.folder is not None:
        return "error", f"{text}: {state.folder} lacks {', '.join(state.missing)}"
    return None, f"{text}: {fault}"


def st_lpips(config: DictConfig, run_dir: Path) -> Check:
    """Do the ST-LPIPS weights load?"""
    from osediff_exp.models.perceptual import st_lpips_distance

    nets = nets_of(config, "st_lpips")
    try:
        for net in nets or ["alex"]:
            st_lpips_distance(net)
    except UserError as error:
        return Check("st_lpips", "error" if nets else "warning", str(error), "pip install stlpips_pytorch==0.0.2")
    return Check("st_lpips", "ok", f"the weights ({', '.join(nets or ['alex'])}) load{'' if nets else '; not used here'}")


def lpips(config: DictConfig, run_dir: Path) -> Check:
    """Is the package lpips there, and the trunk in torch hub's cache or in reach?"""
    nets = nets_of(config, "lpips")
    lacking: Status = "error" if nets else "warning"
    used = "" if nets else "; not used here"
    if importlib.util.find_spec("lpips") is None:
        return Check("lpips", lacking, f"the package lpips is missing{used}", "pip install lpips")
    from osediff_exp.models.perceptual import trunk_path

    absent = {path.name: path for net in nets or ["vgg"] if not (path := trunk_path(net)).is_file()}
    faults = {name: fault for name, fault in ask_all({name: partial(ask_for, _TRUNKS + name) for name in absent}).items() if fault}
    if faults:
        name, fault = next(iter(faults.items()))
        remedy = f"put torchvision's {name} into {absent[name].parent}, or use ST-LPIPS: loss/terms=[mse,st_lpips,vsd]"
        return Check("lpips", lacking, f"the trunk {name} is not here and cannot be downloaded ({fault}){used}", remedy)
    return Check("lpips", "ok", f"{'the trunk will be downloaded at first use' if absent else 'package and trunk are here'}{used}")


def realesrgan(config: DictConfig, run_dir: Path) -> Check:
    """Is there what ``restorers=[realesrgan]`` needs?"""
    from osediff_exp.restoration.realesrgan import installing_realesrgan, realesrgan_weights

    if remedy := installing_realesrgan():
        return Check("realesrgan", "warning", "restorers=[realesrgan] is not installed; not used here", remedy)
    return Check("realesrgan", "ok", f"Real-ESRGAN x4plus for restorers=[realesrgan]: {realesrgan_weights()}")


def nets_of(config: DictConfig, name: str) -> list[str]:
    """Return the networks with which loss terms (of weight above 0; a method's own too) and metrics measure the distance ``name``, whatever
    keys they stand under."""
    own = ["method.training"] * (OmegaConf.select(config, "method.stage") is not None)  # of a later stage: a first one trains without
    groups = [OmegaConf.select(config, key) or {} for key in ("loss.terms", *own, "metrics")]
    nodes = [node for group in groups for node in group.values() if isinstance(node, DictConfig)]
    used = [node for node in nodes if node.get("_target_") in _DISTANCES[name] and node.get("weight", 1.0) != 0]
    return list(dict.fromkeys(str(node.get("net", "alex")) for node in used))


def look(text: str, *, revision: str | None, variant: str | None) -> Found:
    """Return what of a source (folder, ``embedded:NAME`` or hub repository) is on this machine."""
    from osediff_exp.models.sources import as_source

    try:
        source = as_source(text)
    except UserError as error:
        return Found(None, [], first_line(error))
    if isinstance(source, Path):
        return Found(source, missing_files(source, variant=variant))
    folder = _cached(source, revision)
    missing = missing_files(folder, variant=variant) if folder else []
    return Found(folder, missing, "not in the hub's cache", is_repository=True)


def missing_files(folder: Path, *, variant: str | None) -> list[str]:
    """Return what a folder in diffusers layout lacks: configurations, tokenizer, weights (of the variant, e.g. fp16)."""
    lacking = [name for name in _CONFIGS if not (folder / name).is_file()]
    vocabulary = [(folder / "tokenizer" / name).is_file() for name in ("vocab.json", "merges.txt", "tokenizer.json")]
    lacking += [] if vocabulary[2] or all(vocabulary[:2]) else ["tokenizer/vocab.json and merges.txt"]
    return lacking + [f"{part}/*.safetensors" for part in ("unet", "vae", "text_encoder") if not _has_weights(folder / part, variant)]


def _has_weights(part: Path, variant: str | None) -> bool:
    files = [path for path in part.glob("*") if path.suffix in (".safetensors", ".bin")] if part.is_dir() else []
    return any(f".{variant}" in path.stem if variant else "." not in path.stem for path in files)


def _cached(repository: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, _MARKER, revision=revision)
    return Path(path).parents[1] if isinstance(path, str) else None


def _ask_hub(repository: str, revision: str | None) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    get_hf_file_metadata(hf_hub_url(repository, _MARKER, revision=revision), timeout=3)
