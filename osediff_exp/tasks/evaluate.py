"""task=evaluate: restore a test set with one or several restorers, score them, and set them beside the published rows."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from osediff_exp import __version__
from osediff_exp.errors import Incomplete, UserError
from osediff_exp.evaluation.arms import make_arm
from osediff_exp.evaluation.evaluating import ArmResult, evaluate_arm
from osediff_exp.evaluation.kept_scores import KeptScores, forget_scores
from osediff_exp.evaluation.pair_sets import PairSet, describe, find_roots, folder_pairs, validation_pairs
from osediff_exp.evaluation.scoring import Scorer, build_metrics, write_per_image
from osediff_exp.metrics.set_metric import SetMetric
from osediff_exp.photo_units import STANDARD_ERROR
from osediff_exp.reporting.evaluation_table import EvaluationTable, MeasuredRow, print_table, to_csv, to_markdown
from osediff_exp.reporting.evaluations import BARE_KEYS
from osediff_exp.reporting.files import write_atomically
from osediff_exp.restoration.finished import checkpoint_identity, fingerprint
from osediff_exp.restoration.numerics import choose_device
from osediff_exp.restoration.progress import FileProgress
from osediff_exp.restoration.realesrgan import ABOUT, is_realesrgan
from osediff_exp.restoration.specs import ORIGINALS, RestorerSpec, name_restorers
from osediff_exp.runtime import machine, peak_memory_gib, prepare_process, quiet_libraries
from osediff_exp.tasks.loading import load_restorer, model_settings, prompt_identity, refuse_model_settings, typed_settings
from osediff_exp.tasks.train import Figures, build_data

log = logging.getLogger(__name__)

PER_IMAGE, UNMATCHED, PICTURES, SCORES = "per_image.csv", "unmatched.csv", "images", ".scores"


def run(config: DictConfig, run_dir: Path) -> Figures:
    """Evaluate, print and write the table, and return the flat figures: the first restorer's bare, the others' as ``LABEL_psnr``.

    Raises:
        UserError: no restorer, or no usable pair of pictures.
        Incomplete: with the figures, where a picture, a restorer or a metric was lost.
    """
    quiet_libraries()
    prepare_process(seed=config.seed)
    specs, options = named_restorers(config)
    refuse_model_settings(config, [spec.path for spec in specs.values() if spec.kind == "checkpoint" and spec.path is not None])
    pairs = test_set(config, run_dir)
    _forget_last(run_dir, specs)
    results, missing = evaluate(config, run_dir, specs, pairs, options)
    table = make_table(pairs, results, missing, specs, config, options)
    _write(run_dir, pairs, results, table)
    print_table(table, Console(), seconds={result.label: result.seconds_per_image for result in results if result.rows})
    figures = make_figures(config, pairs, results, missing)
    if lost := _losses(pairs, results, missing):
        listed = f" (all in {run_dir / UNMATCHED})" if figures["num_problems"] else ""
        raise Incomplete("; ".join(lost) + listed, figures)
    return figures


# ---- what is evaluated


Options = Mapping[str, Mapping[str, Any]]
"""By label, the options that an entry of ``restorers`` sets for itself."""


def named_restorers(config: DictConfig) -> tuple[dict[str, RestorerSpec], Options]:
    """Return the restorers by label, ``checkpoint`` first, then ``restorers`` (null: bicubic), and their own options."""
    entries: list[tuple[str | None, str, Mapping[str, Any]]] = []
    if config.checkpoint is not None:
        entries.append((None, f"checkpoint:{config.checkpoint}", {}))
    given: Any = config.restorers
    others: Any = OmegaConf.to_container(given, resolve=True) if OmegaConf.is_config(given) else given
    for other in others if isinstance(others, list) else ["bicubic" if others is None else others]:
        labelled: Any = other.items() if isinstance(other, dict) else [(None, other)]
        for label, entry in labelled:
            own = dict(entry) if isinstance(entry, dict) else {}
            path = f"checkpoint:{own.pop('checkpoint')}" if own else str(entry)
            entries.append((None if label is None else str(label), path, own))
    if not entries:
        raise UserError("nothing to evaluate: set checkpoint=PATH, or restorers=[bicubic, PATH, ...]")
    metrics = [str(key) for key in config.metrics]
    figures = {*BARE_KEYS, *metrics, *(key + STANDARD_ERROR for key in metrics)}
    specs = name_restorers([(label, path) for label, path, _ in entries], figures=figures)
    return specs, {label: own for label, (_, _, own) in zip(specs, entries, strict=True) if own}


def with_options(config: DictConfig, own: Mapping[str, Any]) -> DictConfig:
    """Return the configuration with a restorer's own options in place of the common ones."""
    merged = OmegaConf.merge(config, {"restorer": dict(own)})
    assert isinstance(merged, DictConfig)
    return merged


def test_set(config: DictConfig, run_dir: Path) -> PairSet:
    """Return the pairs of the chosen test set; for a training's data its fixed validation pairs."""
    if "datamodule" in config.data:
        return _validation_set(config, run_dir)
    lr_root, hr_root = find_roots(config.data.root, config.data.lr_root, config.data.hr_root)
    first = config.data.first
    if first is not None and first < 1:
        raise UserError(f"data.first={first} leaves no picture: give at least 1, or null for all")
    return folder_pairs(title=config.data.dataset, lr_root=lr_root, hr_root=hr_root, first=first)


def _validation_set(config: DictConfig, run_dir: Path) -> PairSet:
    data = build_data(config, run_dir)
    data.setup("validate")
    if not data.val_pairs:
        raise UserError("the chosen data has no validation pictures: set data.val_root, or choose a test set (data=realsr data.root=DIR)")
    return validation_pairs(data.val_pairs, title="validation")


def _forget_last(run_dir: Path, specs: Mapping[str, RestorerSpec]) -> None:
    """Remove the pictures of an earlier evaluation in this folder, as its table of pictures names them, and nothing else."""
    for label, spec in specs.items():
        if spec.path is not None and (run_dir / PICTURES).resolve() in [spec.path.resolve(), *spec.path.resolve().parents]:
            raise UserError(f"restorer {label}: {spec.path} lies where this run writes its pictures: choose another hydra.run.dir")
    (run_dir / UNMATCHED).unlink(missing_ok=True)
    if not (run_dir / PER_IMAGE).is_file():
        return
    with (run_dir / PER_IMAGE).open(encoding="utf-8", newline="") as file:
        written = [(row["restorer"], row["name"]) for row in csv.DictReader(file) if row.get("restorer")]
    for label, name in written:
        for folder in (label, ORIGINALS):
            (run_dir / PICTURES / folder / f"{name}.png").unlink(missing_ok=True)
    (run_dir / PER_IMAGE).unlink()  # pictures without their table are of an evaluation that was stopped
    forget_scores(run_dir / SCORES)


# ---- evaluating


def evaluate(
    config: DictConfig, run_dir: Path, specs: Mapping[str, RestorerSpec], pairs: PairSet, options: Options
) -> tuple[list[ArmResult], dict[str, str]]:
    """Evaluate one restorer after the other; return what they reached, and the metrics that could not be had."""
    device = str(choose_device(config.restorer.device))
    factories = {name: partial(instantiate, node) for name, node in config.metrics.items() if node is not None}
    metrics, missing = build_metrics(factories)
    measured_by = fingerprint(_plain(config, "metrics"), {"there": list(metrics), "device": device, "version": __version__})
    configs = {label: with_options(config, options.get(label, {})) for label in specs}
    arms = [make_arm(label, spec, load_checkpoint=partial(load_restorer, configs[label]), device=device) for label, spec in specs.items()]
    results: list[ArmResult] = []
    for arm in arms:
        for metric in metrics.values():
            if isinstance(metric, SetMetric):  # it has seen the last restorer's pictures
                metric.reset()
        scorer = Scorer(metrics, missing, device=device)
        with FileProgress(total=len(pairs), label=arm.label, console=Console(stderr=True)) as progress:
            result = evaluate_arm(
                arm,
                pairs,
                scorer=scorer,
                pictures_dir=run_dir / PICTURES,
                log_dir=run_dir,
                originals_dir=None if results else run_dir / PICTURES / ORIGINALS,  # they are the same for all
                watcher=progress,
                settings=_settings(configs[arm.label], specs[arm.label]),
                measure=KeptScores(scorer, run_dir / SCORES, measured_by).measure,
            )
            results.append(result)
    return results, missing


def _settings(config: DictConfig, spec: RestorerSpec) -> str:
    """Return the fingerprint of what decides, besides the low-quality picture, how an output looks."""
    options = {key: value for key, value in _plain(config, "restorer").items() if key != "device"}
    source = "" if spec.path is None else checkpoint_identity(spec.path)
    return fingerprint(options, model_settings(config), {"kind": spec.kind, "version": __version__}, source, *prompt_identity(config))


def _plain(config: DictConfig, group: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config[group], resolve=True)
    return plain


# ---- what is reported


def make_table(
    pairs: PairSet,
    results: list[ArmResult],
    missing: Mapping[str, str],
    specs: Mapping[str, RestorerSpec],
    config: DictConfig,
    options: Options,
) -> EvaluationTable:
    """Return the table with its notes."""
    fixes = {result.label: result.color_fix for result in results if result.color_fix is not None}
    notes = [f"Colour fix: {_by_value(fixes)}."] if fixes else []
    if "datamodule" in config.data and set(fixes.values()) - {"none"}:
        notes.append("A training's own validation applies none: restorer.color_fix=none gives its figures.")
    if _has_checkpoint(specs) and config.restorer.decoder is not None:
        notes.append(f"Decoder of the checkpoints: {config.restorer.decoder}.")
    if _has_checkpoint(specs) and (prompts := typed_settings("prompt")):
        notes.append(f"Prompts of the checkpoints: {' '.join(prompts)}, in place of their own.")
    notes += [f"{label}: {', '.join(f'{key}={value}' for key, value in own.items())}." for label, own in options.items()]
    notes += [f"{label}: {ABOUT}." for label, spec in specs.items() if spec.path is not None and is_realesrgan(spec.path)]
    notes += [f"{key} is missing: {why}" for key, why in missing.items()]
    for result in results:
        notes += [f"{result.label} failed: {result.error}"] if result.error else []
        notes += [f"{result.label} left out {describe(result.problems)}"] if result.problems else []
        notes += [f"{result.label}: {note}" for note in result.notes]
    measured = [MeasuredRow(result.label, len(result.rows), result.averages, result.steps, result.lacking) for result in results]
    return EvaluationTable(dataset=pairs.title, num_images=len(pairs), measured=measured, notes=notes)


def _by_value(values: Mapping[str, str]) -> str:
    """Return the value that all labels have, or each label's."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{label} {value}" for label, value in values.items())


def _has_checkpoint(specs: Mapping[str, RestorerSpec]) -> bool:
    return any(spec.kind == "checkpoint" for spec in specs.values())


def _write(run_dir: Path, pairs: PairSet, results: list[ArmResult], table: EvaluationTable) -> None:
    write_per_image(run_dir / PER_IMAGE, [{"restorer": result.label, **row} for result in results for row in result.rows])
    forget_scores(run_dir / SCORES)
    write_atomically(run_dir / "comparison.csv", to_csv(table))
    write_atomically(run_dir / "comparison.md", to_markdown(table))
    lost = [{"restorer": "", **vars(problem)} for problem in pairs.problems]
    lost += [{"restorer": result.label, **vars(problem)} for result in results for problem in result.problems]
    if lost:
        write_per_image(run_dir / UNMATCHED, lost)


def make_figures(config: DictConfig, pairs: PairSet, results: list[ArmResult], missing: Mapping[str, str]) -> Figures:
    """Return the flat figures of result.json."""
    device = str(choose_device(config.restorer.device))
    first, *others = results
    figures: Figures = {"dataset": pairs.title, "num_images": len(pairs), "restorer": first.label, **first.averages}
    figures |= {} if first.steps is None else {"sampling_steps": first.steps}
    figures |= {} if first.method is None else {"method": first.method}
    figures |= _identity(first, "") | _lost(first, "")
    for other in others:
        figures |= {f"{other.label}_{key}": value for key, value in other.averages.items()}
        figures |= {} if other.steps is None else {f"{other.label}_sampling_steps": other.steps}
        figures |= {} if other.color_fix is None else {f"{other.label}_color_fix": other.color_fix}
        figures |= _identity(other, f"{other.label}_") | _lost(other, f"{other.label}_")
    figures |= {f"{result.label}_restore_seconds": result.seconds_per_image for result in others}
    return figures | {
        **dict.fromkeys(missing),
        "missing": "; ".join(f"{key}: {why}" for key, why in missing.items()) or None,
        "lost": "; ".join(_common_losses(pairs, missing)) or None,
        "num_problems": len(pairs.problems) + sum(len(result.problems) for result in results),
        "num_failed": sum(bool(result.error) for result in results),
        "restore_seconds": first.seconds_per_image,
        "metrics_seconds": sum(result.metrics_seconds for result in results),
        "color_fix": first.color_fix,
        "decoder": config.restorer.decoder,
        "checkpoint": config.checkpoint,
        "peak_memory_gib": peak_memory_gib(device),
        "machine": machine(device),
    }


def _identity(result: ArmResult, prefix: str) -> Figures:
    """Return what tells a report that two evaluations have the same training with two seeds, and the same originals."""
    training = result.training
    figures: Figures = {f"{prefix}originals": result.originals}
    return figures if training is None else figures | {f"{prefix}training_seed": training.seed, f"{prefix}training": training.key}


def _lost(result: ArmResult, prefix: str) -> Figures:
    """Return what this restorer lost, so that a report says it of no other."""
    lost = _own_losses(result)
    return {f"{prefix}lost_by_restorer": "; ".join(lost)} if lost else {}


def _losses(pairs: PairSet, results: list[ArmResult], missing: Mapping[str, str]) -> list[str]:
    """Return a clause for each kind of thing that was lost."""
    return _common_losses(pairs, missing) + [f"{result.label} {text}" for result in results for text in _own_losses(result)]


def _common_losses(pairs: PairSet, missing: Mapping[str, str]) -> list[str]:
    lost = [f"{len(pairs.problems)} pictures of the test set take no part: {describe(pairs.problems)}"] if pairs.problems else []
    return lost + ([f"metrics that are missing: {', '.join(missing)} (see missing in result.json)"] if missing else [])


def _own_losses(result: ArmResult) -> list[str]:
    lost = [f"failed: {result.error}"] if result.error else []
    lost += [f"lacks {len(result.problems)} pictures: {describe(result.problems)}"] if result.problems else []
    return lost + [f"is short of figures: {text}" for text in result.failed]
