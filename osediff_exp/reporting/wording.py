"""Sentences and texts that every kind of report shares, so that a number is written with the same caution everywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from osediff_exp.reporting.differences import too_few_pictures
from osediff_exp.reporting.figures import show_p, show_range
from osediff_exp.reporting.statistics import ALPHA, MIN_PAIRS, POWER, smallest_p

if TYPE_CHECKING:
    from collections.abc import Sequence

    from osediff_exp.reporting.comparison import Comparison
    from osediff_exp.reporting.differences import Difference
    from osediff_exp.reporting.figures import Metric
    from osediff_exp.reporting.runs import Run


def method_note(comparison: Comparison) -> str:
    """Return the sentence that says what the intervals mean and where there are none; the same in every kind of report."""
    counts = {len(row.done) for row in comparison.arms if row.done}
    if not counts:
        return "No arm has finished yet."
    if not comparison.metrics:
        return "The runs validated nothing, so there is nothing to compare: set data.val_root, or data.val_lr_root and data.val_hr_root."
    if counts == {1}:
        return "Every arm is one run (one seed), so there is no interval over seeds: what another seed would give is unknown."
    single = " An arm with one finished seed has no interval." if 1 in counts else ""
    return f"Figures are means over seeds with Student's 95 % interval.{single}"


def how_tested(comparison: Comparison) -> list[str]:
    """Return the sentences that say how differences were tested, what the test could find at all, and what it cannot say."""
    if not comparison.differences or comparison.baseline is None:
        return []
    found = list(comparison.differences.values())
    tested = [one for one in found if one.p is not None]
    units = _units(found)
    lines = [
        f"Every figure is arm minus '{comparison.baseline.label}', averaged over pictures (seeds averaged first), with Student's 95 % "
        f"interval over {units}."
    ]
    if units == "photos":
        lines.append("Crops of one photo (TITLE_0, TITLE_1, ...) are not independent: together they count as one, and n counts photos.")
    if of_set := [
        metric.title for metric in comparison.metrics if metric.of_set and (metric.key in {key for _, key in comparison.differences})
    ]:
        lines.append(f"{', '.join(of_set)}: figures of the whole set; a picture's part is its contribution to them (jackknife).")
    if tested:
        lines.append(_resolution(tested, units))
    if any(show_detectable(one) or _detectable_over_seeds(one) for one in found):
        lines.append(_detectable(tested))
    if too_few_pictures(comparison.differences):
        lines.append(f"Fewer than {MIN_PAIRS} {units}: no test is possible (its p could never fall below {ALPHA:.2f}). Add {units}.")
    return [*lines, _what_seeds_say(found)]


def _units(found: Sequence[Difference]) -> str:
    """Return what n counts: photos, where some pictures are crops of one photo."""
    return "photos" if any(one.interval.n < one.num_pictures for one in found) else "pictures"


def _resolution(tested: Sequence[Difference], units: str) -> str:
    """Say what the test is and how small its p can get, so that "not significant" is not read as "no effect"."""
    numbers = sorted({one.interval.n for one in tested})
    count = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    return (
        f"p: paired sign-flip test, adjusted for all {len(tested)} comparisons of this table (step-down max-T, Westfall and Young). With "
        f"{count} {units} the smallest p that it can give is {smallest_p(numbers[0]):.2g}, however many comparisons there are. A p above "
        f"{ALPHA:.2f} means that these {units} cannot tell, not that there is no effect."
    )


def _detectable(tested: Sequence[Difference]) -> str:
    adjusted = f" (at the level that {len(tested)} comparisons ask for)" if len(tested) > 1 else ""
    return (
        f"'could see': the smallest true difference that this design finds with a probability of {POWER:.0%}{adjusted}, over seeds that of "
        "their interval. A smaller one may well be there."
    )


def _what_seeds_say(found: Sequence[Difference]) -> str:
    shared = sorted({len(one.seeds) for one in found if len(one.seeds) > 1})
    if not shared:
        return "With one seed the test speaks about these trained networks only: another seed may undo or reverse a difference."
    few = " Two seeds give a very wide interval (t = 12.7): add seeds to settle a difference." if shared[0] == 2 else ""
    return (
        "A difference counts as established if p is below 0.05 and Student's 95 % interval over the seeds leaves out 0 on the same side; "
        f"otherwise it holds for these trained networks only. The intervals over seeds are each 95 %, not adjusted.{few}"
    )


def show_difference(metric: Metric, difference: Difference | None) -> str:
    """Write a difference as it may stand: with its interval, number of pictures and adjusted p, or the reason for having none."""
    if difference is None:
        return "-"
    seeds = show_over_seeds(metric, difference)
    parts = [show_range(metric, difference.interval), f"n = {difference.interval.n}", show_test(difference), show_detectable(difference)]
    return ", ".join(filter(None, parts)) + (seeds and f"; {seeds}")


def show_over_seeds(metric: Metric, difference: Difference) -> str:
    """Write the interval over seeds of a difference ("3 seeds: [-0.70, -0.49]"), or "" where one seed gives none.

    Where it leaves open whether there is a difference, it says how large one it could have seen.
    """
    one, size = difference.over_seeds, _detectable_over_seeds(difference)
    return f"{one.n} seeds: {show_range(metric, one).partition(' ')[2]}{size and f', {size}'}" if one else ""


def _detectable_over_seeds(difference: Difference) -> str:
    size = difference.detectable_over_seeds
    return f"could see {size:.2g}" if difference.support != "seeds" and size is not None else ""


def show_detectable(difference: Difference) -> str:
    """Write beside "no difference" how large a one the test could have seen ("could see 0.12"); "" where it found one."""
    return f"could see {difference.detectable:.2g}" if difference.verdict == "unclear" and difference.detectable is not None else ""


def show_test(difference: Difference) -> str:
    """Write the adjusted p of a difference ("p = 0.031"), or that there is no test."""
    if difference.p_adjusted is None:
        return "no test"
    p = show_p(difference.p_adjusted)
    return f"p {p}" if p.startswith("<") else f"p = {p}"


def show_claim(difference: Difference) -> str:
    """Write what may be claimed: "better", "better here, one seed", "better here, not over seeds"; "" where nothing may."""
    if difference.verdict in ("unclear", "untested"):
        return ""
    return difference.verdict if difference.support == "seeds" else f"{difference.verdict} here, {difference.support}"


def marks_meaning(comparison: Comparison) -> str:
    """Return the sentence that explains the marks beside the figures."""
    if all(one.verdict == "untested" for one in comparison.differences.values()):
        return "there are too few pictures for a test."
    if not any(one.support for one in comparison.differences.values()):
        return f"no difference is significant (adjusted p < {ALPHA:.2f})."
    return (
        f"\u25b2 better, \u25bc worse, \u25c6 different: significant over the pictures (adjusted p < {ALPHA:.2f}) and established over "
        "seeds; hollow \u25b3 \u25bd \u25c7: significant over the pictures for these trained networks, not established over seeds."
    )


def how_to_go_on(comparison: Comparison) -> str:
    """Return the sentence that says what to do about runs that have not finished; "" where all have."""
    if not comparison.problems and not comparison.never_started:
        return ""
    command = "the sweep's command" if len(comparison.sources) == 1 else "the command of its run or sweep"
    return (
        f"Repair what a message complains about, then give {command} again: finished runs are kept, interrupted ones go on from "
        "their last checkpoint, the others start."
    )


def last_words(run: Run) -> str:
    """Return a failed run's last line, or how far an unfinished one has come and when it last wrote anything."""
    if run.error:
        return run.error
    step = "nothing logged yet" if run.last_step is None else f"last logged at step {run.last_step}"
    return f"{step}{run.last_written and f'; last wrote anything at {run.last_written}'}"
