"""The scorer: rows, averages over what has a figure, metrics that cannot be had, and threads that change nothing."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.evaluation.folders import score_pairs
from osediff_exp.evaluation.pairing import Pair
from osediff_exp.evaluation.scoring import Scorer, build_metrics, write_per_image
from osediff_exp.metrics.base import ImageMetric, check_size
from osediff_exp.metrics.niqe import NIQE
from osediff_exp.metrics.psnr_y import PSNRY
from osediff_exp.metrics.set_metric import SetMetric, SetScore
from osediff_exp.metrics.ssim_y import SSIMY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class Mean(ImageMetric):
    """The mean of the output; NaN where it is black."""

    def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
        mean = pred.double().mean(dim=(1, 2, 3))
        return torch.where(mean > 0, mean, math.nan)


class Spread(SetMetric):
    """The largest minus the smallest mean of all outputs; a picture's contribution is its own mean. It refuses pictures under 8 px."""

    def describe(self, pred: Tensor, target: Tensor) -> list[Tensor]:
        check_size(pred, 8, "spread")
        return list(pred.mean(dim=(1, 2, 3))[:, None, None])

    def score(self, pictures: Sequence[Tensor]) -> SetScore:
        means = torch.stack([rows.squeeze() for rows in pictures])
        return SetScore(means.max() - means.min(), means)


class Network(Mean):
    """A metric with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 1)


def flat(value: float) -> Tensor:
    return torch.full((3, 8, 8), value)


def test_rows_averages_and_a_metric_of_the_set() -> None:
    scorer = Scorer({"mean": Mean(), "spread": Spread()})
    scorer.add("a", flat(0.25), flat(0))
    row = scorer.add("b", flat(0.75)[None], flat(0)[None])
    assert row == {"name": "b", "mean": 0.75}
    assert scorer.rows == [{"name": "a", "mean": 0.25}, {"name": "b", "mean": 0.75}]
    assert scorer.averages() == {"mean": 0.5, "spread": 0.5, "spread_se": 0.25}
    assert scorer.table() == [{"name": "a", "mean": 0.25, "spread": 0.25}, {"name": "b", "mean": 0.75, "spread": 0.75}]
    assert scorer.notes() == []


def test_a_picture_too_small_for_a_set_is_left_out_of_it_and_named() -> None:
    scorer = Scorer({"spread": Spread()})
    for name, side, value in (("a", 8, 0.25), ("small", 4, 0.5), ("b", 8, 0.75)):
        scorer.add(name, torch.full((3, side, side), value), torch.zeros(3, side, side))
    assert scorer.averages()["spread"] == 0.5
    assert [row.get("spread") for row in scorer.table()] == [0.25, None, 0.75]
    assert scorer.gaps() == {"spread": ["small"]}
    assert "spread needs images of at least 8 x 8 px" in scorer.notes()[0]


def test_the_average_is_over_the_finite_figures_and_says_so() -> None:
    scorer = Scorer({"mean": Mean()})
    for name, value in (("a", 0.5), ("black", 0.0), ("b", 1.0)):
        scorer.add(name, flat(value), flat(0))
    assert scorer.averages() == {"mean": 0.75}
    assert scorer.gaps() == {"mean": ["black"]}
    assert "no figure for 1 of 3 pictures (black)" in scorer.notes()[0]


def test_a_picture_too_small_for_a_metric_keeps_its_other_figures() -> None:
    generator = torch.Generator().manual_seed(0)
    small, large = (torch.rand((3, side, side), generator=generator) for side in (64, 192))
    scorer = Scorer({"psnr": PSNRY(), "niqe": NIQE()})
    scorer.add("small", small, small)
    assert math.isnan(scorer.averages()["niqe"] or 0)
    scorer.add("large", large, large)
    assert scorer.averages() == {"psnr": pytest.approx(80.0), "niqe": scorer.rows[1]["niqe"]}
    assert "at least 96 x 96 px" in scorer.notes()[0]


def test_without_pictures_there_are_no_figures() -> None:
    averages = Scorer({"mean": Mean(), "spread": Spread()}, {"fid": "no weights"}).averages()
    assert averages.pop("fid") is None
    assert all(math.isnan(value or 0) for value in averages.values())


def test_a_metric_of_the_set_that_fails_costs_its_own_figure(tmp_path: Path) -> None:
    class Unsolvable(Spread):
        def score(self, pictures: Sequence[Tensor]) -> SetScore:
            raise ArithmeticError("did not converge")

    scorer = Scorer({"mean": Mean(), "fd": Unsolvable()})
    scorer.add("a", flat(0.5), flat(0))
    assert scorer.table() == [{"name": "a", "mean": 0.5}]
    averages = scorer.averages()
    assert (averages["mean"], math.isnan(averages["fd"] or 0)) == (0.5, True)
    assert scorer.failed() == ["fd failed at the whole set: ArithmeticError: did not converge"]
    scorer.write_tracebacks(tmp_path)
    assert "did not converge" in (tmp_path / "fd.error.log").read_text()


def test_a_batch_of_two_is_no_picture() -> None:
    with pytest.raises(ValueError, match="expected one picture"):
        Scorer({"mean": Mean()}).add("a", torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8))


def test_only_a_users_mistake_makes_a_metric_missing() -> None:
    def no_weights() -> Mean:
        raise UserError("no weights: run once with a network")

    def wrapped() -> Mean:
        try:
            no_weights()
        except UserError as error:
            raise RuntimeError("in a factory") from error
        raise AssertionError

    metrics, missing = build_metrics({"mean": Mean, "fid": no_weights, "musiq": wrapped})
    assert list(metrics) == ["mean"]
    assert missing == {"fid": "no weights: run once with a network", "musiq": "no weights: run once with a network"}
    scorer = Scorer(metrics, missing)
    scorer.add("a", flat(0.5), flat(0))
    assert scorer.averages() == {"mean": 0.5, "fid": None, "musiq": None}
    with pytest.raises(ZeroDivisionError):
        build_metrics({"bug": lambda: 1 / 0})  # type: ignore[dict-item, return-value]


def test_networks_are_known_by_their_parameters() -> None:
    assert not Scorer({"psnr": PSNRY(), "spread": Spread()}).has_networks
    assert Scorer({"psnr": PSNRY(), "network": Network()}).has_networks


def test_the_table_of_pictures_keeps_extra_columns_and_leaves_holes_empty(tmp_path: Path) -> None:
    path = tmp_path / "per_image.csv"
    write_per_image(path, [{"name": "a,b", "psnr": 25.151100823649}, {"name": "c", "psnr": math.nan, "restorer": "bicubic", "fid": None}])
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "psnr", "restorer", "fid"], ["a,b", "25.151101", "", ""], ["c", "", "bicubic", ""]]
    assert [entry.name for entry in tmp_path.iterdir()] == ["per_image.csv"]


@pytest.fixture
def pairs(tmp_path: Path) -> list[Pair]:
    rng = np.random.default_rng(0)
    found = []
    for k in range(7):
        target = rng.integers(0, 256, (100 + k, 120, 3), dtype=np.uint8)
        pred = np.clip(target + rng.normal(0, 10, target.shape), 0, 255).astype(np.uint8)
        found.append(Pair(f"{k}", tmp_path / f"p{k}.png", tmp_path / f"t{k}.png"))
        Image.fromarray(pred).save(found[-1].pred)
        Image.fromarray(target).save(found[-1].target)
    return found


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("four_threads")
def test_threads_change_neither_bits_nor_order(pairs: list[Pair]) -> None:
    pairs[3].pred.write_text("no picture")
    together, alone = (Scorer({"psnr": PSNRY(), "ssim": SSIMY(), "niqe": NIQE()}) for _ in range(2))
    done: list[int] = []
    problems = score_pairs(together, pairs, done=lambda: done.append(1))
    assert torch.get_num_threads() == 4
    torch.set_num_threads(1)
    assert score_pairs(alone, pairs) == problems
    assert together.rows == alone.rows
    assert [row["name"] for row in together.rows] == ["0", "1", "2", "4", "5", "6"]
    assert [(problem.name, problem.problem) for problem in problems] == [("3", "unreadable")]
    assert len(done) == 7


def test_rows_are_those_of_adding_the_8_bit_pictures(pairs: list[Pair]) -> None:
    scorer, by_hand = (Scorer({"psnr": PSNRY(), "spread": Spread()}) for _ in range(2))
    score_pairs(scorer, pairs)
    for pair in pairs:
        by_hand.add(pair.name, *(torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) / 255 for path in (pair.pred, pair.target)))
    assert scorer.averages() == pytest.approx(by_hand.averages(), abs=1e-6)
