"use strict";

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
    document.querySelectorAll(`svg [data-arm="${button.dataset.arm}"]`).forEach((curve) => curve.classList.toggle("hidden", !visible));
  });
}

// Pictures: enlarged in place; left and right walk through the columns of the same row.
const viewer = document.getElementById("viewer");
let row = [];
let place = 0;
function show(next) {
  place = (next + row.length) % row.length;
  const button = row[place];
  document.getElementById("viewer-title").textContent = button.dataset.title;
  document.getElementById("viewer-caption").textContent = button.dataset.caption;
  document.getElementById("viewer-image").src = button.querySelector("img").src;
  document.getElementById("viewer-image").alt = button.querySelector("img").alt;
}
for (const button of document.querySelectorAll(".picture")) {
  button.addEventListener("click", () => {
    row = [...button.closest("tr").querySelectorAll(".picture")];
    show(row.indexOf(button));
    viewer.showModal();
  });
}
document.getElementById("previous").addEventListener("click", () => show(place - 1));
document.getElementById("next").addEventListener("click", () => show(place + 1));
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    show(place + (event.key === "ArrowRight" ? 1 : -1));
    event.preventDefault();
  }
});
viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
