"""The page's script in headless Chromium, at the width of a phone.

The checks are a script inside the page; it hands what it saw to the page around it, whose title Chromium prints (--dump-dom). That
needs neither a driver nor a network.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html import unescape
from typing import TYPE_CHECKING, Any

import pytest
from sweep_folders import make_sweep

from osediff_exp.reporting.writing import write_comparison

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt install chromium) to run the page's script")

CHECK = """<script>
const seen = {errors: []};
addEventListener("error", (event) => seen.errors.push(event.message));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...words) => seen.errors.push(words.join(" "));
const settle = (milliseconds = 60) => new Promise((done) => setTimeout(done, milliseconds));
addEventListener("load", async () => {
  try { await check(); } catch (error) { seen.errors.push(String(error.stack)); }
  parent.postMessage(JSON.stringify(seen), "*");
});
async function check() {
  const get = (id) => document.getElementById(id);
  const names = () => [...document.querySelectorAll("#table tbody tr")].map((row) => row.cells[0].dataset.sort);
  const niqe = [...document.querySelectorAll("#table thead th")].find((cell) => cell.textContent.includes("NIQE"));
  seen.sorted = [names()];
  for (let times = 0; times < 2; times += 1) { niqe.querySelector("button").click(); seen.sorted.push(names()); }
  seen.direction = niqe.getAttribute("aria-sort");
  document.querySelector(".legend button").click();
  seen.hidden = document.querySelectorAll("#curves svg .hidden").length;
  seen.plots = document.querySelectorAll("#curves svg").length;
  document.querySelector(".legend button").click();
  const curve = [...document.querySelectorAll("#curves figure")].find((one) => one.textContent.includes("val/psnr")).querySelector("svg");
  const area = curve.getBoundingClientRect(), readout = document.querySelector(".readout");
  const right = {clientX: area.left + area.width * 0.97, clientY: area.top + 20, bubbles: true};  // the last step
  curve.dispatchEvent(new PointerEvent("pointermove", right)); seen.readout = [...readout.children].map((one) => one.textContent);
  curve.dispatchEvent(new PointerEvent("pointerleave", right)); seen.readout.push(readout.hidden);

  const stage = get("stage"), box = () => stage.getBoundingClientRect();
  const pointer = (kind, x, y, id = 1) => stage.dispatchEvent(new PointerEvent(kind,
    {pointerId: id, clientX: box().left + x * box().width, clientY: box().top + y * box().height, bubbles: true}));
  const key = (name, more = {}) => stage.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true, ...more}));
  const split = () => Number(get("divider").value);
  // Where a point of the picture (0..1) stands on the stage (0..1), read off the page as it is laid out.
  const where = (side, x) => {
    const at = get(`${side}-image`).getBoundingClientRect();
    return (at.left + x * at.width - box().left) / box().width;
  };
  await settle();
  seen.shape = box().width / box().height;
  seen.split = [split()];
  pointer("pointerdown", 0.5, 0.5); pointer("pointermove", 0.25, 0.5); pointer("pointerup", 0.25, 0.5); seen.split.push(split());
  seen.clip = get("right-layer").style.clipPath;
  get("divider").value = 80; get("divider").dispatchEvent(new Event("input")); seen.split.push(split());
  key("ArrowLeft"); seen.split.push(split());
  seen.line = (get("divider-line").getBoundingClientRect().left + 1 - box().left) / box().width;

  get("zoom-in").click(); get("zoom-in").click();
  seen.zoom = [get("zoom-level").textContent, where("left", 0.5), where("right", 0.5)];
  pointer("pointerdown", 0.2, 0.5); pointer("pointermove", 0.1, 0.5); pointer("pointerup", 0.1, 0.5);
  seen.moved = [where("left", 0.5), where("right", 0.5), split()];
  key("0"); seen.reset = [get("zoom-level").textContent, where("left", 0), where("right", 1)];
  pointer("pointerdown", 0.4, 0.5, 1); pointer("pointerdown", 0.6, 0.5, 2);
  pointer("pointermove", 0.3, 0.5, 1); pointer("pointermove", 0.7, 0.5, 2);
  pointer("pointerup", 0.3, 0.5, 1); pointer("pointerup", 0.7, 0.5, 2);
  seen.pinched = [get("zoom-level").textContent, where("left", 0.5)];
  stage.dispatchEvent(new MouseEvent("dblclick", {clientX: box().left, clientY: box().top, bubbles: true}));
  stage.dispatchEvent(new WheelEvent("wheel", {deltaY: -100, bubbles: true, cancelable: true}));
  seen.wheel = [get("zoom-level").textContent];
  stage.dispatchEvent(new WheelEvent("wheel", {deltaY: -100, ctrlKey: true, bubbles: true, cancelable: true}));
  seen.wheel.push(get("zoom-level").textContent);

  const titles = () => [get("left-tag").textContent, get("right-tag").textContent, get("right-image").alt];
  seen.titles = [titles()];
  key("x"); key("PageDown"); seen.titles.push(titles());
  seen.figures = [...get("picture-figures").rows].map((row) => [...row.cells].map((cell) => cell.textContent));
  const buttons = [...document.querySelectorAll(".picture")];
  buttons.at(-1).click(); seen.titles.push(titles());
  await settle();
  seen.broken = [...document.images].filter((image) => image.src && !image.naturalWidth).length;
  seen.overflow = document.documentElement.scrollWidth - innerWidth;
  seen.width = innerWidth;
  const unnamed = (element) => !(element.textContent.trim() || element.getAttribute("aria-label") || element.querySelector("img[alt]"));
  seen.unnamed = [...document.querySelectorAll("button")].filter(unnamed).length;
  document.querySelector(".copy").click(); await settle();
  seen.copy = document.querySelector(".copy").textContent;
}
</script></head>"""
AROUND = """<!doctype html><title>waiting</title><iframe src="page.html" style="width:390px;height:800px;border:0"></iframe>
<script>addEventListener("message", (event) => { document.title = "SEEN" + event.data + "END"; });</script>"""


def look(page: str, folder: Path) -> dict[str, Any]:
    """Open ``page`` in a frame 390 px wide and return what the checks saw."""
    (folder / "page.html").write_text(page.replace("</head>", CHECK, 1))
    (folder / "around.html").write_text(AROUND)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--virtual-time-budget=10000"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", (folder / "around.html").as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout
    found = re.search(r"<title>SEEN(.*?)END</title>", dom)
    assert found, "the page's script did not finish"
    seen = json.loads(unescape(found.group(1)))
    assert isinstance(seen, dict)
    return seen


def test_sorting_slider_zoom_and_keys_work_on_a_phone(tmp_path: Path) -> None:
    seen = look(write_comparison(make_sweep(tmp_path / "sweep")).page.read_text(), tmp_path)
    assert seen["errors"] == []
    assert seen["width"] == 390
    assert (seen["broken"], seen["unnamed"]) == (0, 0)
    assert seen["overflow"] <= 0, "the page itself must not scroll sideways"
    assert seen["sorted"] == [
        ["without VSD", "with VSD", "lambda2=8", "lambda2=2", "bicubic"],
        ["with VSD", "without VSD", "bicubic", "lambda2=8", "lambda2=2"],
        ["bicubic", "without VSD", "with VSD", "lambda2=8", "lambda2=2"],
    ]
    assert seen["direction"] == "descending"
    assert seen["hidden"] == seen["plots"] > 0
    assert seen["readout"][0] == "step 60"
    assert [text.split(":")[0] for text in seen["readout"][1:-1]] == ["with VSD", "without VSD"], "who has logged this step, highest first"
    assert float(seen["readout"][1].split(": ")[1]) == pytest.approx(24 + 3 * (1 - math.exp(-3)) - 0.6, abs=0.01)
    assert seen["readout"][-1] is True, "gone with the pointer"
    assert seen["shape"] == pytest.approx(1, abs=0.01)
    assert seen["split"] == pytest.approx([50, 25, 80, 78], abs=0.6)
    assert seen["clip"] == "inset(0px 0px 0px 25%)"
    assert seen["line"] == pytest.approx(0.78, abs=0.01)
    assert seen["zoom"] == ["225 %", pytest.approx(0.5, abs=0.01), pytest.approx(0.5, abs=0.01)]
    assert seen["moved"] == pytest.approx([0.4, 0.4, 78], abs=0.01), "both pictures move as one, the divider stays"
    assert seen["reset"] == ["100 %", pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01)]
    assert seen["pinched"] == ["200 %", pytest.approx(0.5, abs=0.01)]
    assert seen["wheel"] == ["100 %", "140 %"], "a wheel alone scrolls the page"
    assert seen["titles"] == [
        ["bicubic", "lambda2=2 (step 100)", "astronaut_00, lambda2=2 (step 100)"],
        ["lambda2=2 (step 100)", "bicubic", "coffee_01, bicubic"],
        ["lambda2=2 (step 100)", "HQ (original)", "coffee_01, HQ (original)"],
    ]
    assert seen["figures"][0] == ["PSNR-Y", "-", "23.50"], "the picture's own figures, for the arm that has some"
    assert seen["copy"] in ("Copied", "Selected")
