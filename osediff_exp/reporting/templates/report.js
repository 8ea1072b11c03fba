"use strict";
const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

// Tables: a click on a heading sorts by it, a second click reverses. Empty cells stay last either way.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.querySelectorAll("thead th")];
  headings.forEach((heading, column) => heading.addEventListener("click", () => {
    const upwards = heading.getAttribute("aria-sort") !== "ascending";
    headings.forEach((other) => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", upwards ? "ascending" : "descending");
    const numeric = heading.classList.contains("number");
    const key = (row) => row.cells[column].dataset.sort;
    const compare = (a, b) => (numeric ? Number(key(a)) - Number(key(b)) : key(a).localeCompare(key(b)));
    const order = (a, b) => (key(a) === "") - (key(b) === "") || (upwards ? compare(a, b) : compare(b, a));
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
  }));
}

// Curves: the legend hides and shows an arm in every plot.
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const visible = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(visible));
    document.querySelectorAll(`#curves svg [data-arm="${button.dataset.arm}"]`).forEach((curve) => curve.classList.toggle("hidden", !visible));
  });
}

// Curves: the values of all visible lines at the step under the pointer, nearest point each.
const readout = document.body.appendChild(Object.assign(document.createElement("div"), {className: "readout", hidden: true}));
const scale = (text) => {
  const [low, high, start, end, log] = text.split(" ");
  const ends = [low, high].map((value) => (log ? Math.log10(value) : Number(value)));
  return (pixel) => {
    const value = ends[0] + (ends[1] - ends[0]) * (pixel - start) / (end - start);
    return log ? 10 ** value : value;
  };
};
const brief = (value) => String(Number(value.toPrecision(4)));
function readAt(svg, event) {
  const box = svg.getBoundingClientRect();
  const pixel = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
  const [x, y] = [scale(svg.dataset.x), scale(svg.dataset.y)];
  const nearest = [...svg.querySelectorAll("g[data-arm]:not(.hidden)")].map((group) => {
    const points = [...group.querySelector("polyline").points];
    return [group, points.reduce((best, point) => (Math.abs(point.x - pixel) < Math.abs(best.x - pixel) ? point : best))];
  });
  if (!nearest.length) return;
  const at = nearest.reduce((best, one) => (Math.abs(one[1].x - pixel) < Math.abs(best[1].x - pixel) ? one : best))[1].x;
  const shown = nearest.filter(([, point]) => Math.abs(point.x - at) < 8).sort((a, b) => a[1].y - b[1].y).slice(0, 24);
  const head = Object.assign(document.createElement("b"), {textContent: `${svg.dataset.across} ${Math.round(x(at))}`});
  readout.replaceChildren(head, ...shown.map(([group, point]) => {
    const line = document.createElement("span");
    line.className = group.getAttribute("class");
    line.append(Object.assign(document.createElement("i"), {className: "dot"}), `${group.dataset.name}: ${brief(y(point.y))}`);
    return line;
  }));
  readout.hidden = false;
  const width = readout.offsetWidth, room = document.documentElement.clientWidth;
  readout.style.left = `${clamp(event.clientX + (event.clientX + width + 24 > room ? -width - 14 : 14), 4, Math.max(4, room - width - 4))}px`;
  readout.style.top = `${clamp(event.clientY + 14, 4, Math.max(4, innerHeight - readout.offsetHeight - 4))}px`;
}
for (const svg of document.querySelectorAll("#curves svg[data-x]")) {
  for (const kind of ["pointermove", "pointerdown"]) svg.addEventListener(kind, (event) => readAt(svg, event));
  svg.addEventListener("pointerleave", () => { readout.hidden = true; });
}
addEventListener("scroll", () => { readout.hidden = true; }, {passive: true});

// Quality against cost: one plane at a time, of the figure that is chosen; without scripts all of them stand below each other.
const chooseCost = byId("choose-cost");
if (chooseCost) {
  const show = () => document.querySelectorAll("[data-quality]").forEach((one) => { one.hidden = one.dataset.quality !== chooseCost.value; });
  chooseCost.addEventListener("change", show);
  chooseCost.closest(".controls").hidden = false;
  show();
}

// Commands: copied where the browser allows it, else selected, so that Ctrl+C does it.
for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", async () => {
    const text = button.previousElementSibling;
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// Pictures: two of a row's pictures lie over each other on a stage, and a divider says how much of each is seen. Zoom and place are
// kept for both at once, in units of the stage, so that they fit at every size of the window.
function comparer(stage, rows) {
  const most = 16;
  const view = {zoom: 1, x: 0, y: 0, split: 50};
  const shown = {left: 0, right: 0};
  const images = {left: byId("left-image"), right: byId("right-image")};
  const choose = {left: byId("choose-left"), right: byId("choose-right")};
  const picture = byId("choose-picture");
  const buttonAt = (column) => rows[picture.value].querySelector(`.picture[data-column="${column}"]`);

  function draw() {
    view.x = clamp(view.x, 1 - view.zoom, 0);
    view.y = clamp(view.y, 1 - view.zoom, 0);
    for (const image of Object.values(images)) image.style.transform = `translate(${100 * view.x}%, ${100 * view.y}%) scale(${view.zoom})`;
    byId("right-layer").style.clipPath = `inset(0 0 0 ${view.split}%)`;
    byId("divider-line").style.left = `${view.split}%`;
    byId("divider").value = view.split;
    byId("zoom-level").textContent = `${Math.round(100 * view.zoom)} %`;
    stage.classList.toggle("zoomed", view.zoom > 1);
  }

  // Zoom about a point of the stage (0..1): what lies there stays there.
  function zoomTo(zoom, x = 0.5, y = 0.5) {
    const next = clamp(zoom, 1, most);
    view.x = x - (x - view.x) * next / view.zoom;
    view.y = y - (y - view.y) * next / view.zoom;
    view.zoom = next;
    draw();
  }

  function moveSplit(value) {
    view.split = clamp(value, 0, 100);
    draw();
  }

  function load() {
    for (const side of ["left", "right"]) {
      const button = buttonAt(choose[side].value) ?? rows[picture.value].querySelector(".picture");
      shown[side] = button.dataset.column;
      choose[side].value = shown[side];
      images[side].src = button.querySelector("img").src;
      images[side].alt = button.querySelector("img").alt;
      byId(`${side}-tag`).textContent = byId(`${side}-heading`).textContent = button.dataset.title;
    }
    const [left, right] = ["left", "right"].map((side) => new Map(JSON.parse(buttonAt(shown[side]).dataset.figures)));
    byId("picture-figures").replaceChildren(...[...new Set([...left.keys(), ...right.keys()])].map((metric) => {
      const line = document.createElement("tr");
      for (const text of [metric, left.get(metric) ?? "-", right.get(metric) ?? "-"]) line.insertCell().textContent = text;
      return line;
    }));
  }

  // The stage takes the largest picture's shape; pixels are shown as squares where they are enlarged.
  function fit() {
    const {naturalWidth: width, naturalHeight: height} = images.right;
    if (!width) return;
    stage.style.aspectRatio = `${width} / ${height}`;
    for (const image of Object.values(images)) image.classList.toggle("pixels", stage.clientWidth * view.zoom >= image.naturalWidth);
  }

  function fill(select, entries) {
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
  }

  function turn(by) {
    picture.value = (Number(picture.value) + by + rows.length) % rows.length;
    load();
  }

  function swap() {
    [choose.left.value, choose.right.value] = [choose.right.value, choose.left.value];
    load();
  }

  const columns = new Map([...document.querySelectorAll(".picture")].map((button) => [button.dataset.column, button]));
  const ordered = [...columns.values()].sort((a, b) => a.dataset.column - b.dataset.column);
  fill(picture, rows.map((row, place) => [place, row.dataset.name]));
  for (const select of Object.values(choose)) fill(select, ordered.map((button) => [button.dataset.column, button.dataset.title]));
  const outputs = ordered.filter((button) => button.dataset.kind === "output");
  choose.left.value = (ordered.find((button) => button.dataset.kind === "bicubic") ?? ordered[0]).dataset.column;
  choose.right.value = (outputs.at(-1) ?? ordered.at(-1)).dataset.column;

  for (const select of [picture, choose.left, choose.right]) select.addEventListener("change", load);
  images.right.addEventListener("load", fit);
  images.left.addEventListener("load", fit);
  addEventListener("resize", fit);
  byId("divider").addEventListener("input", (event) => moveSplit(Number(event.target.value)));
  byId("swap").addEventListener("click", swap);
  const zooms = {"zoom-in": () => zoomTo(view.zoom * 1.5), "zoom-out": () => zoomTo(view.zoom / 1.5), "zoom-reset": () => zoomTo(1)};
  for (const [id, action] of Object.entries(zooms)) byId(id).addEventListener("click", () => { action(); fit(); });

  // Fingers and mouse: one moves the divider, or the picture where it is zoomed and the divider is far; two zoom.
  const fingers = new Map();
  let moves = "";
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return {x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height};
  };
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return {x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, size: Math.hypot(a.x - b.x, a.y - b.y)};
  };
  stage.addEventListener("pointerdown", (event) => {
    const here = at(event);
    fingers.set(event.pointerId, here);
    try { stage.setPointerCapture(event.pointerId); } catch { /* the pointer is gone already */ }
    const near = Math.abs(here.x - view.split / 100) * stage.clientWidth < 24;
    moves = fingers.size === 2 ? "zoom" : view.zoom === 1 || near ? "split" : "picture";
    if (moves === "split") moveSplit(100 * here.x);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    const before = fingers.get(event.pointerId), here = at(event);
    const pair = fingers.size === 2 ? spread() : null;
    fingers.set(event.pointerId, here);
    if (moves === "split") return moveSplit(100 * here.x);
    if (pair) {
      const now = spread();
      view.x += now.x - pair.x;
      view.y += now.y - pair.y;
      return zoomTo(view.zoom * now.size / Math.max(pair.size, 0.01), now.x, now.y);
    }
    view.x += here.x - before.x;
    view.y += here.y - before.y;
    draw();
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    stage.addEventListener(kind, (event) => { fingers.delete(event.pointerId); moves = fingers.size ? "picture" : ""; fit(); });
  }
  stage.addEventListener("dblclick", (event) => { zoomTo(view.zoom > 1 ? 1 : 4, at(event).x, at(event).y); fit(); });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;  // a wheel alone scrolls the page
    event.preventDefault();
    zoomTo(view.zoom * Math.exp(-event.deltaY / 300), at(event).x, at(event).y);
    fit();
  }, {passive: false});

  const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  stage.addEventListener("keydown", (event) => {
    const [dx, dy] = step[event.key] ?? [0, 0];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.shiftKey && (dx || dy)) { view.x -= dx / 10; view.y -= dy / 10; draw(); }
    else if (dx) moveSplit(view.split + 2 * dx);
    else if (event.key === "+" || event.key === "=") zooms["zoom-in"]();
    else if (event.key === "-") zooms["zoom-out"]();
    else if (event.key === "0") zooms["zoom-reset"]();
    else if (event.key === "PageDown" || event.key === "PageUp") turn(event.key === "PageDown" ? 1 : -1);
    else if (event.key === "x") swap();
    else return;
    fit();
    event.preventDefault();
  });

  byId("comparer").hidden = false;
  load();
  draw();
  return (button) => {
    picture.value = rows.indexOf(button.closest("tr"));
    choose.right.value = button.dataset.column;
    load();
  };
}

const pictureRows = [...document.querySelectorAll(".pictures tbody tr")].filter((row) => row.querySelector(".picture"));
if (pictureRows.length) {
  const show = comparer(byId("stage"), pictureRows);
  for (const button of document.querySelectorAll(".picture")) {
    button.addEventListener("click", () => {
      show(button);
      byId("comparer").scrollIntoView({block: "nearest"});
    });
  }
}
