"""task=score: score a folder of outputs against the originals by the field's protocol, whatever made the outputs."""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table
from rich.text import Text

from osediff_exp.errors import Incomplete, UserError
from osediff_exp.evaluation.folders import score_pairs
from osediff_exp.evaluation.pairing import Pairing, Problem, count_problems, pair_folders
from osediff_exp.evaluation.scoring import Scorer, build_metrics, write_per_image
from osediff_exp.photo_units import STANDARD_ERROR, is_standard_error
from osediff_exp.reporting.figures import Metric, metrics_of
from osediff_exp.restoration.numerics import choose_device
from osediff_exp.restoration.progress import FileProgress
from osediff_exp.runtime import prepare_process, quiet_libraries

log = logging.getLogger(__name__)

Figures = dict[str, float | int | str | None]
PER_IMAGE, UNMATCHED = "per_image.csv", "unmatched.csv"
_NAMED = 5  # problems told on the terminal; the file has them all


def run(config: DictConfig, run_dir: Path) -> Figures:
    """Score ``config.pred`` against ``config.gt``, write per_image.csv and, where files could not be scored, unmatched.csv.

    Returns:
        Counts, averages (None for a metric that could not be had) and ``missing``, the reasons for those.

    Raises:
        Incomplete: some files or metrics have no figures; the rest are kept.
        UserError: nothing could be scored.
    """
    quiet_libraries()
    prepare_process(seed=config.seed)
    pairing = pair_folders(_folder(config, "pred"), _folder(config, "gt"), pred_suffix=config.pred_suffix, gt_suffix=config.gt_suffix)
    scorer = build_scorer(config)
    started = time.perf_counter()
    problems = sorted(pairing.problems + _score(scorer, pairing), key=lambda problem: problem.name)
    _write_problems(run_dir, problems)
    if not scorer.rows:
        raise UserError(f"none of the {len(pairing.pairs)} matching pictures can be scored: {_examples(problems)}")
    write_per_image(run_dir / PER_IMAGE, scorer.table())
    scorer.write_tracebacks(run_dir)
    figures = figures_of(scorer, problems) | {"metrics_seconds": time.perf_counter() - started}
    Console().print(table(scorer, str(config.pred)))
    for note in scorer.notes():
        log.warning("%s", note)
    _tell_missing(scorer.missing)
    if shortfall := _shortfall(scorer, problems, pairing.hint, run_dir):
        raise Incomplete(shortfall, figures)
    return figures


def _folder(config: DictConfig, key: str) -> str:
    if not isinstance(config[key], str | int | float):
        raise UserError(f"{key}={config[key]}: give one folder, {key}=FOLDER")
    return str(config[key])


def build_scorer(config: DictConfig) -> Scorer:
    """Return the scorer of ``config.metrics``; a metric that cannot be had is kept as missing."""
    nodes = {key: node for key, node in config.metrics.items() if node is not None}
    metrics, missing = build_metrics({str(key): partial(instantiate, node) for key, node in nodes.items()})
    if not metrics:
        reasons = "; ".join(f"{key}: {reason}" for key, reason in missing.items())
        raise UserError(f"no metric is left to score with ({reasons or 'all are null'}): choose metrics=basic")
    return Scorer(metrics, missing, device=str(choose_device(config.device)))


def _score(scorer: Scorer, pairing: Pairing) -> list[Problem]:
    with FileProgress(total=len(pairing.pairs), label="scoring", console=Console(stderr=True)) as progress:
        return score_pairs(scorer, pairing.pairs, done=progress.advance)


def _write_problems(run_dir: Path, problems: list[Problem]) -> None:
    path = run_dir / UNMATCHED
    if problems:
        write_per_image(path, [vars(problem) for problem in problems])
    else:
        path.unlink(missing_ok=True)  # of an earlier run in a folder that is used again


def figures_of(scorer: Scorer, problems: list[Problem]) -> Figures:
    """Return the flat figures of result.json: pictures scored, averages, what is missing and why, and how many files have which problem.

    ``num_images_METRIC`` stands beside an average that leaves pictures out.
    """
    figures: Figures = {"num_images": len(scorer.rows), "originals": scorer.originals, **scorer.averages()}
    figures |= {f"num_images_{key}": len(scorer.rows) - len(names) for key, names in scorer.gaps().items()}
    figures["missing"] = "; ".join(f"{key}: {reason}" for key, reason in scorer.missing.items()) or None
    return figures | {f"num_{kind.replace('-', '')}": count for kind, count in count_problems(problems).items()}


def table(scorer: Scorer, label: str) -> Table:
    """Return the averages for the terminal, a line per metric: an arrow where better lies, and how many pictures are behind it."""
    averages, gaps = scorer.averages(), scorer.gaps()
    known = {metric.key: metric for metric in metrics_of([dict.fromkeys(averages, 0.0)])}
    result = Table("metric", title=Text(label), box=None)
    result.add_column("average", justify="right")
    result.add_column("pictures", justify="right")
    for key, value in averages.items():
        if is_standard_error(key, averages):
            continue
        metric = known.get(key, Metric(key, key, "unknown", 4, ""))
        pictures = "missing" if key in scorer.missing else str(len(scorer.rows) - len(gaps.get(key, [])))
        error = averages.get(key + STANDARD_ERROR)
        shown = metric.show(value) + (f" (standard error {metric.show(error)})" if error is not None else "")
        result.add_row(Text(f"{metric.title} {metric.arrow}".strip()), Text(shown), Text(pictures))
    return result


def _tell_missing(missing: dict[str, str]) -> None:
    for key, reason in missing.items():
        log.warning("%s is missing: %s", key, reason)


def _shortfall(scorer: Scorer, problems: list[Problem], hint: str, run_dir: Path) -> str:
    """Return one line about files and metrics without figures, or "" where everything was scored."""
    parts = []
    if problems:
        counts = ", ".join(f"{count} {kind}" for kind, count in count_problems(problems).items() if count)
        parts.append(f"{counts}: {_examples(problems)} (all in {run_dir / UNMATCHED}).{hint}")
    parts += scorer.failed()
    if scorer.missing:
        parts.append(f"without figures: {', '.join(scorer.missing)} (the reasons are above and in result.json)")
    scored = f"{len(scorer.rows)} pictures are scored"
    return f"{scored}, but {'; '.join(parts)}" if parts else ""


def _examples(problems: list[Problem]) -> str:
    more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
    return "; ".join(f"{problem.problem}: {problem.detail}" for problem in problems[:_NAMED]) + more
