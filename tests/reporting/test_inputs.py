"""Pictures that share a name and nothing else are no pairs; other degradations of one original are, but have no best among them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sweep_folders import config, crops, make_run, result, write_per_image

from osediff_exp.reporting.comparison import ReportSettings, compare
from osediff_exp.reporting.html import _figures_of_pictures
from osediff_exp.reporting.inputs import seen
from osediff_exp.reporting.pictures import choose_pictures
from osediff_exp.reporting.runs import Run
from osediff_exp.reporting.writing import write_comparison


def run(bicubic: dict[str, float] | None = None, hq: dict[str, Path] | None = None, **result: Any) -> Run:
    """A run with these bicubic PSNRs by picture and these originals."""
    per_image = {name: {"psnr": 25.0, "bicubic_psnr": value, "bicubic_kid": value} for name, value in (bicubic or {}).items()}
    return Run(Path("r"), "r", "done", result=result, per_image=per_image, pictures={"hq": hq or {}})


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """An original, the same pixels in other bytes, and another original."""
    picture, other = crops(2).values()
    paths = [tmp_path / f"{name}.png" for name in ("one", "again", "other")]
    picture.save(paths[0])
    picture.save(paths[1], compress_level=1)
    other.save(paths[2])
    return paths


def test_inputs_are_told_apart_by_bicubic_and_originals_by_their_pixels(files: list[Path]) -> None:
    one, again, other = files
    assert seen(run({"a": 22.0}), run({"a": 22.001})) == "same", "machines round differently"
    assert seen(run({"a": 22.0}, {"a": one}), run({"a": 24.0}, {"a": again})) == "other inputs"
    assert seen(run({"a": 22.0}, {"a": one}), run({"a": 24.0}, {"a": other})) == "other originals"
    assert seen(run({"a": 22.0, "b": 22.0}, {"a": one}), run({"a": 22.0, "b": 24.0}, {"a": one})) == "other originals", (
        "nothing proves it of b"
    )
    assert seen(run({"a": 22.0}), run({"b": 24.0})) == "same", "no picture is shared, so none is mistaken"


def test_without_figures_of_the_inputs_only_saved_originals_can_speak(files: list[Path]) -> None:
    def plain(path: Path | None) -> Run:
        return Run(Path("r"), "r", "done", per_image={"a": {"psnr": 25.0}}, pictures={"hq": {"a": path} if path else {}})

    assert [seen(plain(files[0]), plain(path)) for path in (files[1], files[2], None)] == ["same", "other originals", "same"]
    assert seen(run(bicubic_psnr=22.0), run(bicubic_psnr=24.0)) == "other inputs", "no table of pictures: the whole set's figure"


def test_scores_name_their_originals_by_a_hash() -> None:
    def scored(originals: str, names: str = "ab") -> Run:
        return Run(Path("r"), "r", "done", result={"originals": originals}, per_image={name: {"psnr": 25.0} for name in names})

    assert seen(scored("1f"), scored("1f")) == "same"
    assert seen(scored("1f"), scored("2e")) == "other originals"
    assert seen(scored("1f"), scored("2e", "a")) == "same", "a hash of other names says nothing of the shared ones"
    assert seen(scored("1f"), run({"a": 22.0, "b": 22.0})) == "same", "a training has none"


def sweep(folder: Path, originals: list[dict[str, Image.Image]], bicubic: list[float]) -> Path:
    """Two arms on these originals with these bicubic PSNRs; the second is better by 1 dB on every name."""
    for number, (pictures, value) in enumerate(zip(originals, bicubic, strict=True)):
        figures = result(25.0 + number, 0.7, 5, 0.3, bicubic_psnr=value)
        made = make_run(folder, number, [f"degradation={number}"], result=figures, config=config(degradation=number), pictures=pictures)
        write_per_image(made, {name: [25.0 + number, 0.7, 5, 0.3] for name in pictures})
        table = (made / "per_image.csv").read_text()
        (made / "per_image.csv").write_text(table.replace(",23.5,", f",{value},"))
    return folder


def test_a_sweep_over_degradations_keeps_its_pairs_and_marks_no_best(tmp_path: Path) -> None:
    pictures = crops(6)
    comparison = write_comparison(sweep(tmp_path, [pictures, pictures], [24.0, 22.0]))
    assert comparison.differences["degradation=1", "psnr"].interval.mean == pytest.approx(1)
    assert not any(comparison.best.values())
    for path in (comparison.page, comparison.markdown, comparison.latex):
        assert "The arms were tested on different inputs (degradation=0; degradation=1)" in path.read_text().replace(r"\=", "=")


def test_every_bicubic_column_shows_the_figures_of_its_own_inputs(tmp_path: Path) -> None:
    originals = crops(1)
    comparison = compare(sweep(tmp_path, [originals] * 2, [24.0, 22.0]))
    for number, row in enumerate(comparison.arms):
        assert row.run is not None
        originals["astronaut_00"].rotate(90 * number).save(row.run.pictures["bicubic"]["astronaut_00"])
    figures = _figures_of_pictures(choose_pictures(comparison.arms), comparison.metrics)
    shown = {title: dict(values)["PSNR-Y"] for (title, _), values in figures.items()}
    assert shown == {
        "bicubic: degradation=0": "24.00", "bicubic: degradation=1": "22.00", "degradation=0": "25.00", "degradation=1": "26.00",
    }  # fmt: skip


def test_other_originals_of_the_same_names_are_not_paired(tmp_path: Path) -> None:
    pictures = crops(6)
    others = dict(zip(pictures, reversed(pictures.values()), strict=True))
    comparison = write_comparison(sweep(tmp_path, [pictures, others], [24.0, 22.0]))
    assert (comparison.differences, any(comparison.best.values())) == ({}, False)
    assert "The arms were tested on different originals" in comparison.markdown.read_text()
    against = compare(tmp_path, ReportSettings(baseline="bicubic (degradation=0)"))
    assert {label for label, _ in against.differences} == {"degradation=0"}, "the other arm is not of that reference"
