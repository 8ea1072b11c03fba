"""task=doctor: is everything there that the chosen configuration needs? One line per check, with the remedy.

Nothing heavy is imported before a check needs it: a missing or broken torch gives a red line, not an end.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from osediff_exp.errors import Incomplete
from osediff_exp.tasks.doctor import files, hardware, licences, prompts, services, software, weights
from osediff_exp.tasks.doctor.check import Check, CheckFunction, examine

Figures = dict[str, float | int | str | None]
CHECKS: tuple[CheckFunction, ...] = (
    software.python,
    software.packages,
    software.extras,
    software.checkout,
    hardware.devices,
    hardware.cores,
    hardware.float32,
    hardware.bfloat16,
    hardware.float16,
    files.disk,
    files.caches,
    files.data,
    weights.backbone,
    weights.st_lpips,
    weights.lpips,
    weights.realesrgan,
    prompts.prompts,
    prompts.tagger_files,
    prompts.prompt_cache,
    services.wandb,
    licences.licence_code,
    licences.licence_sd21,
    licences.licence_pyiqa,
    licences.licence_ram,
)
_STYLES = {"ok": "green", "warning": "yellow", "error": "bold red", "note": "cyan"}


def run(config: DictConfig, run_dir: Path) -> Figures:
    """Run and print every check; return ``num_ok``, ``num_warnings``, ``num_errors`` and each check's text.

    Raises:
        Incomplete: something that the chosen configuration needs is missing or broken.
    """
    _quiet()
    console = Console(highlight=False)
    checks: list[Check] = []
    for function in CHECKS:
        checks.append(examine(function, config, run_dir))
        console.print(line_of(checks[-1]), soft_wrap=True)
    figures = summary(checks)
    console.print(f"ok: {figures['num_ok']}, warnings: {figures['num_warnings']}, errors: {figures['num_errors']}")
    broken = [check.name for check in checks if check.status == "error"]
    if broken:
        raise Incomplete(f"{len(broken)} of {len(checks)} checks failed ({', '.join(broken)}): each line above says what to do", figures)
    return figures


def summary(checks: list[Check]) -> Figures:
    """Return the flat figures of result.json; notes are in no count."""
    count = Counter(check.status for check in checks)
    totals = {"num_ok": count["ok"], "num_warnings": count["warning"], "num_errors": count["error"]}
    return totals | {check.name: f"{check.status}: {check.detail}" for check in checks}


def line_of(check: Check) -> Text:
    """Return status (coloured in a terminal), name, detail, and the remedy on a line of its own."""
    remedy = f"\n{'':24}-> {check.remedy}" if check.remedy else ""
    return Text.assemble((f"{check.status:8}", _STYLES[check.status]), f"{check.name:16}{check.detail}", (remedy, _STYLES[check.status]))


def _quiet() -> None:
    try:
        from osediff_exp.runtime import quiet_libraries
    except Exception:  # the checks say what is wrong with torch, diffusers or transformers
        return
    quiet_libraries()
