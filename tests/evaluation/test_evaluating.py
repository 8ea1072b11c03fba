"""Evaluating one restorer: what is scored is what is saved, and no failure reaches beyond its own picture or restorer."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from osediff_exp.errors import UserError
from osediff_exp.evaluation.arms import Arm, make_arm
from osediff_exp.evaluation.evaluating import ArmResult, Watcher, evaluate_arm, on_8_bit_grid
from osediff_exp.evaluation.kept import KeptPictures
from osediff_exp.evaluation.kept_scores import KeptScores, forget_scores
from osediff_exp.evaluation.pair_sets import Pair, PairSet
from osediff_exp.evaluation.scoring import Measured, Scorer
from osediff_exp.metrics.kid import KID
from osediff_exp.metrics.niqe import NIQE
from osediff_exp.metrics.psnr_y import PSNRY, psnr_y
from osediff_exp.restoration.base import ImageRestorer
from osediff_exp.restoration.bicubic import BicubicRestorer
from osediff_exp.restoration.outputs import FolderRestorer
from osediff_exp.restoration.specs import RestorerSpec


class Grey(ImageRestorer):
    """Returns 0.3 everywhere, in four steps; knows how to fail."""

    steps = 4

    def __init__(self, *, refuse: str = "", crash: str = "") -> None:
        self.refuse, self.crash = refuse, crash

    def __call__(self, lr: Tensor, *, scale: int, names: list[str]) -> Tensor:
        if names == [self.refuse]:
            raise UserError(f"{self.refuse} is not to my taste")
        if names == [self.crash]:
            raise RuntimeError("out of\nmemory")
        return torch.full((1, 3, scale * lr.shape[2], scale * lr.shape[3]), 0.3)


def make_pairs(number: int = 3) -> PairSet:
    def load(k: int) -> Pair:
        generator = torch.Generator().manual_seed(k)
        return Pair(
            f"p{k}", on_8_bit_grid(torch.rand(1, 3, 4, 5, generator=generator)), on_8_bit_grid(torch.rand(1, 3, 8, 10, generator=generator))
        )

    return PairSet(title="t", names=[f"p{k}" for k in range(number)], load=load)


def evaluate(arm: Arm, folder: Path, **more):
    return evaluate_arm(arm, make_pairs(), scorer=Scorer({"psnr": PSNRY()}), pictures_dir=folder / "images", log_dir=folder, **more)


def read(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None].float() / 255


def test_the_saved_picture_is_what_is_scored(tmp_path: Path) -> None:
    result = evaluate(Arm("bicubic", BicubicRestorer), tmp_path)
    assert [row["name"] for row in result.rows] == ["p0", "p1", "p2"]
    for row, pair in zip(result.rows, make_pairs(), strict=True):
        picture = read(tmp_path / "images" / "bicubic" / f"{row['name']}.png")
        assert row["psnr"] == pytest.approx(psnr_y(picture, pair.hr).item(), abs=1e-9)
    assert result.averages == {"psnr": pytest.approx(sum(float(row["psnr"]) for row in result.rows) / 3)}
    assert (result.error, result.problems, result.steps) == ("", [], None)


def test_pictures_and_the_steps_within_one_are_told(tmp_path: Path) -> None:
    class Sampler(BicubicRestorer):
        def tell_steps(self, on_step: Callable[[int, int], None]) -> None:
            self.on_step = on_step

        def __call__(self, lr: Tensor, *, scale: int, names: list[str]) -> Tensor:
            self.on_step(1, 2)
            return super().__call__(lr, scale=scale, names=names)

    said: list[str] = []

    class Notes(Watcher):
        def start(self, name: str) -> None:
            said.append(name)

        def step(self, done: int, steps: int) -> None:
            said.append(f"{done}/{steps}")

        def advance(self) -> None:
            said.append("done")

    evaluate(Arm("sampler", Sampler), tmp_path, watcher=Notes())
    assert said == [word for name in ("p0", "p1", "p2") for word in (name, "1/2", "done")]


def test_a_refused_picture_is_named_and_the_others_count(tmp_path: Path) -> None:
    result = evaluate(Arm("grey", lambda: Grey(refuse="p1")), tmp_path)
    assert [row["name"] for row in result.rows] == ["p0", "p2"]
    assert [(problem.name, problem.detail) for problem in result.problems] == [("p1", "p1 is not to my taste")]
    assert (result.averages.keys(), result.steps) == ({"psnr"}, 4)
    assert not (tmp_path / "images" / "grey" / "p1.png").exists()


def test_a_picture_that_is_not_finite_is_a_problem_and_not_scored(tmp_path: Path) -> None:
    class Diverged(Grey):
        def __call__(self, lr: Tensor, *, scale: int, names: list[str]) -> Tensor:
            restored = super().__call__(lr, scale=scale, names=names)
            restored[0, 0, 0, :2] = {"p1": math.nan, "p2": math.inf}.get(names[0], 0.3)
            return restored

    result = evaluate(Arm("grey", Diverged), tmp_path)
    assert [row["name"] for row in result.rows] == ["p0"]
    assert [(problem.name, problem.problem, problem.detail) for problem in result.problems] == [
        (name, "not finite", "2 of 240 values are NaN or infinite") for name in ("p1", "p2")
    ]
    assert not (tmp_path / "images" / "grey" / "p1.png").exists()


def test_a_restorer_that_crashes_has_no_averages_and_leaves_its_traceback(tmp_path: Path) -> None:
    result = evaluate(Arm("grey", lambda: Grey(crash="p1")), tmp_path)
    assert result.error == "RuntimeError: out of memory"
    assert (len(result.rows), result.averages) == (1, {})
    assert "raise RuntimeError" in (tmp_path / "grey.error.log").read_text()


def test_a_restorer_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    spec = RestorerSpec("outputs", tmp_path / "nowhere")
    result = evaluate(make_arm("outputs", spec, load_checkpoint=lambda path: Grey(), device="cpu"), tmp_path)
    assert "does not exist" in result.error
    assert (result.rows, result.averages) == ([], {})
    assert not (tmp_path / "outputs.error.log").exists()


def test_a_stopped_evaluation_goes_on_with_the_same_figures(tmp_path: Path) -> None:
    asked: list[str] = []

    class Stopped(Grey):
        def __call__(self, lr: Tensor, *, scale: int, names: list[str]) -> Tensor:
            asked.append(names[0])
            if stop and asked == ["p0", "p1"]:
                raise KeyboardInterrupt
            return lr.repeat_interleave(scale, 2).repeat_interleave(scale, 3) ** 1.1

    stop = False
    whole = evaluate(Arm("whole", Stopped), tmp_path)
    asked.clear()
    stop = True
    with pytest.raises(KeyboardInterrupt):
        evaluate(Arm("a", Stopped), tmp_path, settings="these")
    on = evaluate(Arm("a", Stopped), tmp_path, settings="these")
    assert asked == ["p0", "p1", "p1", "p2"]
    assert (on.rows, on.averages, len(on.restore_seconds)) == (whole.rows, whole.averages, 3)
    evaluate(Arm("a", Stopped), tmp_path, settings="others")
    assert asked[4:] == ["p0", "p1", "p2"]


def test_an_error_of_a_metric_costs_its_figure_of_that_picture_alone(tmp_path: Path) -> None:
    class Broken(PSNRY):
        def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
            if torch.equal(target, make_pairs().load(1).hr):
                raise torch.OutOfMemoryError("out of\nmemory")
            return super().per_image(pred, target)

    scorer = Scorer({"psnr": PSNRY(), "musiq": Broken()})
    result = evaluate_arm(Arm("grey", Grey), make_pairs(), scorer=scorer, pictures_dir=tmp_path, log_dir=tmp_path)
    assert [math.isnan(float(row["musiq"])) for row in result.rows] == [False, True, False]
    assert result.averages["musiq"] == pytest.approx((float(result.rows[0]["psnr"]) + float(result.rows[2]["psnr"])) / 2)
    assert (result.error, result.failed) == ("", ["musiq failed at 1 of 3 pictures (p1): OutOfMemoryError: out of memory"])
    assert "in per_image" in (tmp_path / "grey.musiq.error.log").read_text()

    class Stopped(PSNRY):
        def per_image(self, pred: Tensor, target: Tensor) -> Tensor:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_arm(Arm("grey", Grey), make_pairs(), scorer=Scorer({"psnr": Stopped()}), pictures_dir=tmp_path, log_dir=tmp_path)


def test_a_restorer_is_freed_before_the_next_is_built(tmp_path: Path) -> None:
    alive: list[weakref.ref[Grey]] = []

    def build() -> Grey:
        assert all(reference() is None for reference in alive)
        restorer = Grey()
        alive.append(weakref.ref(restorer))
        return restorer

    for label in ("one", "two", "three"):
        evaluate(Arm(label, build), tmp_path)
    assert len(alive) == 3


def test_the_seconds_of_a_picture_are_the_median() -> None:
    """The first picture warms up: its seconds are not what the others take."""
    assert ArmResult("a", restore_seconds=[9.0, 1.0, 2.0]).seconds_per_image == 2.0
    assert math.isnan(ArmResult("a").seconds_per_image)


def test_arms_build_what_their_spec_names(tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "outputs" / "a.png")
    loaded: list[Path] = []

    def load(path: Path) -> Grey:
        loaded.append(path)
        return Grey()

    arms = {
        kind: make_arm(kind, RestorerSpec(kind, None if kind == "bicubic" else tmp_path / "outputs"), load_checkpoint=load, device="cpu")
        for kind in ("bicubic", "checkpoint", "outputs")
    }
    assert not loaded  # nothing is loaded before its turn
    built = {kind: type(arm.build()) for kind, arm in arms.items()}
    assert built == {"bicubic": BicubicRestorer, "checkpoint": Grey, "outputs": FolderRestorer}
    assert loaded == [tmp_path / "outputs"]


def test_values_are_rounded_to_the_nearest_of_256(tmp_path: Path) -> None:
    image = torch.tensor([-0.2, 0.0, 100.4 / 255, 100.6 / 255, 1.0, 1.3]).expand(1, 3, 2, 6)
    grid = on_8_bit_grid(image)
    assert grid[0, 0, 0].mul(255).tolist() == pytest.approx([0, 0, 100, 101, 255, 255], abs=1e-4)
    KeptPictures(tmp_path / "new", None).save(Pair("a", grid, grid), grid, 1.0)
    assert torch.equal(read(tmp_path / "new" / "a.png"), grid)


class Counted(Scorer):
    """Counts the pictures that it was asked for."""

    asked = 0

    def measure(self, pred: Tensor, target: Tensor) -> Measured:
        self.asked += 1
        return super().measure(pred, target)


def noisy_pairs(number: int, side: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(on_8_bit_grid(torch.rand(1, 3, side, side, generator=generator)), torch.rand(1, 3, side, side)) for _ in range(number)]


def scored(folder: Path, pairs: list[tuple[Tensor, Tensor]], settings: str = "") -> Counted:
    scorer = Counted({"psnr": PSNRY(), "niqe": NIQE(), "kid": KID()})
    kept = KeptScores(scorer, folder, settings)
    for k, pair in enumerate(pairs):
        scorer.keep(f"p{k}", kept.measure(*pair))
    return scorer


def test_scores_are_found_again_to_the_bit(tmp_path: Path) -> None:
    pairs = noisy_pairs(4, 128)
    first, second = scored(tmp_path, pairs[:3]), scored(tmp_path, pairs)
    assert (first.asked, second.asked) == (3, 1)
    whole = scored(tmp_path / "anew", pairs)
    assert (second.averages(), second.table(), second.originals) == (whole.averages(), whole.table(), whole.originals)
    assert scored(tmp_path, pairs, "other metrics").asked == 4


def test_a_picture_that_a_metric_refuses_is_refused_in_the_same_words(tmp_path: Path) -> None:
    pairs = noisy_pairs(1, 40)  # too small for NIQE
    first, second = scored(tmp_path, pairs), scored(tmp_path, pairs)
    assert second.asked == 0
    assert (second.notes(), second.failed()) == (first.notes(), first.failed())
    assert first.notes()[0].startswith("niqe: no figure for 1 of 1 pictures (p0); ")
    assert first.failed()[0].startswith("niqe has no figure for any of 1 pictures: ")
    assert "96" in first.failed()[0]


def test_what_failed_is_asked_again_and_damaged_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = noisy_pairs(2, 128)

    def crash(*_: Tensor) -> Tensor:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(PSNRY, "per_image", crash)
        assert scored(tmp_path, pairs).failed()
    assert scored(tmp_path, pairs).asked == 2
    next(tmp_path.glob("*.measured.safetensors")).write_bytes(b"half of")
    assert scored(tmp_path, pairs).asked == 1


def test_only_scores_are_forgotten(tmp_path: Path) -> None:
    scored(tmp_path / "scores", noisy_pairs(2, 40))
    forget_scores(tmp_path / "scores")
    assert not (tmp_path / "scores").exists()
    scored(tmp_path / "scores", noisy_pairs(2, 40))
    (tmp_path / "scores" / "mine.safetensors").touch()
    forget_scores(tmp_path / "scores")
    assert [path.name for path in (tmp_path / "scores").iterdir()] == ["mine.safetensors"]
