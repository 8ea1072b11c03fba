from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from sweep_folders import config, make_run, make_sweep, result

from osediff_exp.reporting.comparison import ReportSettings
from osediff_exp.reporting.embedding import embed
from osediff_exp.reporting.pictures import Column, Pictures
from osediff_exp.reporting.writing import write_comparison

if TYPE_CHECKING:
    from pathlib import Path

EVIL = "<script>alert('x')</script>\"&'"


class Reader(HTMLParser):
    """Collects tags, addresses and what tags are left open."""

    void = {"meta", "img", "br", "link", "input", "circle", "line", "polyline", "polygon"}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attrs if key in ("src", "href", "data", "action")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_comparison(make_sweep(tmp_path_factory.mktemp("sweep"))).page.read_text()


def test_the_page_is_well_formed_and_needs_nothing_from_outside(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert reader.addresses
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in reader.addresses)
    assert "link" not in reader.tags
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", page)
    assert "default-src 'none'" in page


def test_the_page_says_what_was_asked_and_what_became_of_every_arm(page: str) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "Does &lt;VSD&gt; &amp; friends help?" in text
    assert "lambda2=8 diverged: the loss is not finite at step 40; lower lambda2" in text
    assert "2 of 4 runs have not finished." in text
    assert "python -m osediff_exp -m +experiment=vsd_ablation lambda2=0,1,8,2" in text
    for word in ("PSNR-Y", "NIQE", "ST-LPIPS", "train/vsd_grad_norm", "VSD diagnostics", "4,437,000", "1a2b3c4", "step 100"):
        assert word in text
    assert re.findall(r'class="number best" data-sort="([^"]+)"', page) == ["25.94", "0.741", "0.291", "5.02"]


def test_everything_from_runs_and_settings_is_escaped(tmp_path: Path) -> None:
    make_run(tmp_path, 0, [f"a={EVIL}"], result=result(25, 0.7, 5, 0.3, machine=EVIL), config=config(note=EVIL), folder="0_a")
    make_run(tmp_path, 1, ["a=1"], error=EVIL, config=config(note="b"))
    (tmp_path / "1_a=1" / "metrics.csv").write_text(f'step,"{EVIL.replace(chr(34), chr(34) * 2)}"\n1,2\n2,3\n')
    page = write_comparison(tmp_path, ReportSettings(title=EVIL, question=EVIL, labels={EVIL: EVIL, "a=1": EVIL})).page.read_text()
    reader = Reader(page)
    assert reader.tags.count("script") == 1
    assert "<script>alert" not in page


def test_damaged_and_missing_pictures_leave_a_hole(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path)
    outputs = sorted(sweep.glob("0_*/images/output/*.png"))
    outputs[0].write_bytes(outputs[0].read_bytes()[:200])
    outputs[1].unlink()
    page = write_comparison(sweep).page.read_text()
    assert page.count('<div class="hole">missing</div>') == 2


def test_pictures_stay_within_the_budget(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = {}
    for name in "abc":
        files[name] = tmp_path / f"{name}.png"
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(files[name])
    pictures = Pictures(list("abc"), [Column("x", "lq", files)])
    assert embed(pictures).names == ["a", "b", "c"]
    tight = embed(pictures, budget=12_000)
    assert 0 < len(tight.names) < 3
    assert sum(map(len, tight.addresses.values())) <= 12_000
    assert all(address.startswith("data:image/jpeg") for address in tight.addresses.values())
    assert f"{len(tight.names)} of 3" in tight.note
