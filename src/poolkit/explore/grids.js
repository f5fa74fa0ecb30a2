"use strict";
/* Grids of numbers: the picture, the outputs, their difference, slopes and gradients. */

const NARROW = 7; // columns up to which numbers are written with three digits

function short(number) {
  if (typeof number !== "number") return number;
  const size = Math.abs(number);
  if (size !== 0 && (size < 0.01 || size >= 100000)) return signed(number.toExponential(1).replace("e+", "e"));
  return signed(String(Number(number.toPrecision(size >= 1000 ? 5 : 3))));
}

/* Two digits after the point, for small cells: .25, −.02, 1. */
function tiny(number) {
  if (typeof number !== "number" || number === 0 || Math.abs(number) >= 9.995) return short(number);
  return signed(String(Number(number.toFixed(2))).replace(/^(-?)0\./, "$1.")).replace(/^−?0$/, number < 0 ? "−0" : "+0");
}

/* Four digits, for the steps. */
function long(number) {
  if (typeof number !== "number") return number;
  const size = Math.abs(number);
  const text = size !== 0 && (size < 0.0001 || size >= 1000000) ? number.toExponential(2).replace("e+", "e") : String(Number(number.toPrecision(4)));
  return signed(text);
}

const signed = (text) => text.replace(/-/g, "−");
const largest = (...grids) => Math.max(1e-300, ...grids.flat(2).filter((v) => typeof v === "number").map(Math.abs));
const upTo = (full) => `up to ${short(full < 1e-200 ? 0 : full)}`;

/* One grid. `frame`: cells outside the picture, before and after, along each axis; `mark`: the classes of a cell. */
function drawGrid(figure, rows, full, { frame = [[0, 0], [0, 0]], name, mark = () => "", active = null, digits = 12, write, keys = true }) {
  const [[top, bottom], [left, right]] = frame, high = rows.length + top + bottom, wide = rows[0].length + left + right;
  const grid = gridOf(figure, high, wide, keys);
  let place = 0;
  for (let r = -top; r < rows.length + bottom; r++) {
    for (let c = -left; c < rows[0].length + right; c++) {
      const inside = r >= 0 && c >= 0 && r < rows.length && c < rows[0].length;
      paint(grid.children[place++], inside ? rows[r][c] : null, full, r, c, mark(r, c), wide <= digits ? write || (wide <= NARROW ? short : tiny) : null);
    }
  }
  const [r, c] = active || [0, 0];
  grid.setAttribute("aria-label", name + (active && rows[r] ? `; row ${r + 1}, column ${c + 1}: ${long(rows[r][c])}` : ""));
  return grid;
}

function gridOf(figure, high, wide, keys) {
  let grid = figure.querySelector(".grid");
  if (!grid) {
    grid = figure.appendChild(document.createElement("div"));
    grid.className = "grid";
    grid.setAttribute("role", keys ? "group" : "img");
    if (keys) grid.tabIndex = 0;
  }
  if (grid.dataset.shape !== `${high}x${wide}`) {
    grid.dataset.shape = `${high}x${wide}`;
    grid.style.gridTemplateColumns = `repeat(${wide}, minmax(0, 1fr))`;
    grid.classList.toggle("spaced", wide <= 20);
    grid.style.setProperty("--digits", `min(1.05rem, calc(100cqw / ${wide} / ${wide <= NARROW ? 5 : 2.6}))`);
    grid.replaceChildren(...Array.from({ length: high * wide }, () => document.createElement("div")));
    for (const cell of grid.children) cell.appendChild(document.createElement("span"));
  }
  return grid;
}

/* Only what changed is written: a picture of 32×32 is drawn at every step of a slider. */
function paint(cell, value, full, r, c, mark, write) {
  const text = value === null ? "" : write ? write(value) : typeof value !== "number" ? value : "";
  const number = typeof value === "number" ? value : 0, strength = (Math.abs(number) / full).toFixed(3);
  const drawn = `${r},${c}|${mark}|${text}|${strength}|${number < 0}|${value === null}`;
  cell.value = value;
  if (cell.drawn === drawn) return;
  cell.drawn = drawn;
  cell.className = (value === null ? "outside " : "") + mark;
  cell.dataset.place = `${r},${c}`;
  cell.style.setProperty("--tone", number < 0 ? "var(--less)" : "var(--more)");
  cell.style.setProperty("--strength", strength);
  cell.firstChild.textContent = text;
}

/* A cell's exact number, when it is pointed at. */
function entitle(cell) {
  const [r, c] = pair(cell.dataset.place);
  cell.title = `row ${r + 1}, column ${c + 1}: ${cell.value === null ? "outside" : long(cell.value)}`;
}

function bold(text) {
  return element("b", text);
}

function element(name, text) {
  const found = document.createElement(name);
  found.textContent = text;
  return found;
}
