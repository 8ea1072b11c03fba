from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sweep_folders import make_run, make_seed_sweep, result

from osediff_exp.reporting.comparison import ReportSettings, compare
from osediff_exp.reporting.paper_ablations import published_for
from osediff_exp.reporting.paper_costs import paper_costs
from osediff_exp.reporting.published import published_rows, read_table
from osediff_exp.reporting.settings import ReportSettings as Settings
from osediff_exp.reporting.writing import write_comparison

if TYPE_CHECKING:
    from pathlib import Path


def test_osediffs_own_row_is_the_same_in_every_table() -> None:
    main = next(row for row in published_rows("RealSR") if row.method == "OSEDiff").figures
    own = published_for(
        list("abcd"), dict(zip("abcd", ["T3/VSD in latent space", "T5/VAE rank 4", "T6/U-Net rank 4", "T7/encoder"], strict=True))
    )
    for row in own[0].values():
        assert dict(row.figures) == pytest.approx(
            {key: main[key] for key in row.figures}, abs=4e-4
        )  # NIQE: 5.6479 there, 5.6476 in Table 1
    assert len({(row["table"], row["row"]) for row in read_table("paper_ablations.csv")}) == len(read_table("paper_ablations.csv"))


def test_rows_are_found_by_name_and_source_is_told() -> None:
    found, notes = published_for(["x", "y"], {"x": "T3/GAN", "y": {"psnr": 24.0, "source": "a blog"}})
    assert (found["x"].figures, found["x"].source) == (
        {"psnr": 25.0, "lpips": 0.276, "musiq": 67.29, "clipiqa": 0.6254},
        "arXiv 2406.08177v3, Table 3, RealSR",
    )
    assert (found["y"].figures, found["y"].source, notes) == ({"psnr": 24.0}, "a blog", [])


def test_what_fits_nothing_is_a_note_with_the_nearest_name() -> None:
    found, notes = published_for(["with VSD"], {"with VDS": "T3/GAN", "with VSD": "T3/GANN"})
    assert found == {}
    assert notes == [
        "report.published: 'with VDS' is the label of no arm. Did you mean 'with VSD'?",
        "report.published: there is no row 'T3/GANN' in the paper's tables. Did you mean 'T3/GAN'?",
    ]


def test_published_values_stand_beside_the_measured_ones(tmp_path: Path) -> None:
    comparison = write_comparison(make_seed_sweep(tmp_path))
    assert "paper 25.42" in comparison.page.read_text()
    assert "| without VSD: without VSD | 25.42 |" in comparison.markdown.read_text()
    assert compare(tmp_path, ReportSettings(published={"without VSD": {"psnr": 1.0}})).published["without VSD"].figures == {"psnr": 1.0}


def test_settings_ignore_what_is_null() -> None:
    assert Settings.of({"baseline": None, "published": None, "labels": {"a": 1}}) == Settings(labels={"a": "1"})
    assert Settings.of(None) == Settings()


def test_published_digits_and_remarks_are_kept_in_every_report(tmp_path: Path) -> None:
    wanted = {"without VSD": "T5/VAE rank 2", "with VSD": "T3/GAN"}
    comparison = write_comparison(make_seed_sweep(tmp_path), ReportSettings(published=wanted))
    markdown, latex, page = (path.read_text() for path in (comparison.markdown, comparison.latex, comparison.page))
    assert "| with VSD: GAN | 25.00 | 0.2760 | 67.29 | 0.6254 |" in markdown
    assert "with VSD & 25.00 & 0.2760 & 67.29 & 0.6254 &" in latex
    assert all("does not converge" in text for text in (markdown, latex, page))
    assert published_for(["a"], {"a": "T5/VAE rank 4"})[0]["a"].show("niqe") == "5.6479"


def test_a_method_brings_its_rows_of_table_1_and_table_2(tmp_path: Path) -> None:
    wanted = {"without VSD": "T1/RealSR/SinSR", "with VSD": "T3/GAN"}
    comparison = write_comparison(make_seed_sweep(tmp_path), ReportSettings(published=wanted))
    markdown, page = comparison.markdown.read_text(), comparison.page.read_text()
    assert "| without VSD: SinSR | 26.28 | 0.7347 | 0.3188 |" in markdown
    titles, rows = paper_costs(comparison)
    assert titles == ["Sampling steps", "Seconds per picture", "GMACs at 512 px", "Parameters (M)", "Trained parameters (M)"]
    assert [label for label, _ in rows] == ["without VSD"]  # GAN is none of the paper's methods
    assert [printed for _, printed in rows[0][1]] == ["1", "0.13", "2649", "119", "118.6"]
    assert all("Table 2" in text and "0.13" in text for text in (markdown, page))
    assert published_for(["a"], {"a": "T1/RealSR/OSEDif"})[1][0].endswith("Did you mean 'T1/RealSR/OSEDiff'?")


def test_costs_say_in_how_many_of_its_steps_a_method_was_sampled(tmp_path: Path) -> None:
    figures = {"sampling_steps": 10, "own_sampling_steps": 200, "macs_g": 98412.3, "macs_g_sampled": 6600.0, "params_trainable": 105.5e6}
    figures |= {"restore_seconds_per_image": 2.345}
    make_run(tmp_path, 0, ["method=stablesr"], result=result(24.0, 0.7, 6.0, 0.4, **figures), config={"seed": 1})
    make_run(tmp_path, 1, ["method=sinsr"], result=result(24.0, 0.7, 6.0, 0.4, sampling_steps=1, own_sampling_steps=1), config={"seed": 1})
    wanted = {"stablesr": "T1/RealSR/StableSR", "sinsr": "T1/RealSR/SinSR"}
    names = {f"method={method}": method for method in wanted}
    rows = dict(paper_costs(compare(tmp_path, ReportSettings(labels=names, published=wanted)))[1])
    assert rows["stablesr"] == [("10 of its own 200", "200"), ("2.35", "11.50"), ("98,412", "79940"), ("-", "1410"), ("105.5", "150.0")]
    assert rows["sinsr"][0] == ("1", "1")


def test_no_costs_stand_beside_arms_that_are_no_methods(tmp_path: Path) -> None:
    assert paper_costs(compare(make_seed_sweep(tmp_path))) == ([], [])
