"use strict";
/* What is drawn of an answer: the panels with picture and outputs, and a card for each method. */

const MANY_COLUMNS = 64; // cells of a window that the steps show
let touched = ""; // the cell of the picture under the mouse

const has = (list, value) => list.indexOf(value) >= 0;
const windowed = () => last.answers.find((answer) => answer.windows);
const good = () => last.answers.filter((answer) => !answer.error);
const inPicture = (r, c) => r >= 0 && c >= 0 && r < last.picture.length && c < last.picture[0].length;
const windowAt = (place) => last.window.axes.map((axis, i) => axis.windows[place[i]]);

function draw() {
  const full = largest(last.picture, ...good().map((answer) => answer.values));
  drawPicture(full);
  for (const side of [0, 1]) drawOutput(side, last.answers[side], full);
  drawDifference();
  drawCards();
  fillParameters();
  $("words").textContent = [geometryInWords(), cellInWords()].filter(Boolean).join("\n");
}

/* The whole of it for windows; of methods that only have places, how many of them. */
function geometryInWords() {
  const counts = last.answers.some((answer) => (answer.parameters || {}).count_include_pad === "true");
  if (windowed() && !counts) return last.window.words;
  return last.answers.some((answer) => answer.takes_window) ? last.window.words.split("\n")[0] : "";
}

function cellInWords() {
  const at = (place) => `row ${place[0] + 1}, column ${place[1] + 1}`, places = new Set(good().map((answer) => at(answer.cell.place)));
  if (places.size === 1) return `output ${[...places][0]}: ` + good().map((answer) => `${answer.spelling} ${long(answer.cell.value)}`).join(", ");
  return good().map((answer) => `${answer.spelling}, output ${at(answer.cell.place)}: ${long(answer.cell.value)}`).join("; ");
}

/* ---- panels ---- */

/* The window that is looked at: of a cell that the method with windows has. */
function ownWindow() {
  const answer = windowed(), [r, c] = pair(view.cell);
  return answer && answer.cell.place[0] === r && answer.cell.place[1] === c ? windowAt(answer.cell.place) : [[], []];
}

function pictureMark() {
  const [rows, columns] = last.window.axes.map((axis) => new Set(axis.windows.flat())), own = ownWindow(), frames = windowed();
  return (r, c) =>
    (frames && inPicture(r, c) && !(rows.has(r) && columns.has(c)) ? "unread " : "") +
    (has(own[0], r) && has(own[1], c) ? "window " : "") + (touched === `${r},${c}` ? "here" : "");
}

function drawPicture(full) {
  const frame = windowed() ? last.window.axes.map((axis) => [axis.before, axis.after]) : undefined, figure = $("picture-panel");
  figure.querySelector("figcaption").replaceChildren(bold("picture"), ` ${last.picture.length}×${last.picture[0].length}`, element("i", legend()));
  if (!editing) drawGrid(figure, last.picture, full, { frame, name: "the picture", mark: pictureMark(), active: touched ? pair(touched) : null });
}

const editable = () => !held && last.picture[0].length <= 12;
function legend() {
  const [rows, columns] = last.window.axes, parts = editable() ? ["double-click or Enter to edit"] : [];
  const read = (axis) => new Set(axis.windows.flat().filter((n) => n >= 0 && n < axis.length)).size;
  if (windowed() && rows.before + rows.after + columns.before + columns.after) parts.push("hatched: outside the picture");
  if (windowed() && (read(rows) < rows.length || read(columns) < columns.length)) parts.push("struck through: in no window");
  return parts.join(" · ");
}

/* Whether an output's window holds the cell of the picture under the mouse. */
function reads(r, c) {
  const [row, column] = pair(touched), [rows, columns] = last.window.axes;
  return touched && r < rows.windows.length && c < columns.windows.length && has(rows.windows[r], row) && has(columns.windows[c], column);
}

function drawOutput(side, answer, full) {
  const figure = $(`output-${side}`);
  figure.hidden = !answer;
  if (!answer) return;
  const caption = figure.querySelector("figcaption"), grid = figure.querySelector(".grid");
  if (grid) grid.hidden = Boolean(answer.error);
  caption.className = answer.error ? "refused" : "";
  if (answer.error) { caption.replaceChildren(bold(answer.spelling), element("i", answer.error)); return; }
  const number = Math.min(whole(view.map), answer.maps - 1), cells = answer.values.length * answer.values[0].length;
  caption.replaceChildren(bold(answer.spelling), ` ${answer.shape.join("×")}`);
  if (answer.maps > 1) caption.append(` · map ${number + 1} of `, mapChooser(answer, number));
  if (answer.shape.length === 1) caption.append(`, ${upTo(largest(answer.values))}`);
  const cut = cells < answer.numbers ? `, the first ${cells} of ${answer.numbers.toLocaleString("en")} numbers` : "";
  caption.append(element("i", ((aboutOf(answer.name) || {}).title || "") + cut));
  const place = answer.cell.place, here = (r, c) => r === place[0] && c === place[1];
  const mark = (r, c) => (here(r, c) ? "here" : answer.windows && reads(r, c) ? "touched" : "");
  // A vector is no picture: its numbers have a scale of their own.
  const scale = answer.shape.length === 1 ? largest(answer.values) : full;
  drawGrid(figure, answer.values, scale, { name: `output of ${answer.spelling}`, mark, active: place });
}

function mapChooser(answer, number) {
  const button = element("button", `${answer.maps} ›`);
  button.type = "button";
  button.setAttribute("aria-label", "show the next map");
  button.addEventListener("click", () => change({ map: String((number + 1) % answer.maps) }));
  return button;
}

function drawDifference() {
  const figure = $("difference");
  figure.hidden = !last.difference;
  if (figure.hidden) return;
  const [one, other] = last.answers, full = largest(last.difference), place = one.cell.place;
  figure.querySelector("figcaption").replaceChildren(bold("difference"), ` ${upTo(full)}`, element("i", `${one.spelling} − ${other.spelling}`));
  const mark = (r, c) => (r === place[0] && c === place[1] ? "here" : windowed() && reads(r, c) ? "touched" : "");
  drawGrid(figure, last.difference, full, { name: "difference of the outputs", mark, active: place });
}

/* ---- cards ---- */

function drawCards() {
  const box = $("cards");
  while (box.children.length > last.answers.length) box.lastChild.remove();
  last.answers.forEach((answer, side) => {
    let card = box.children[side];
    if (!card) { box.append($("card").content.cloneNode(true)); card = box.children[side]; wireCard(card); }
    card.hidden = Boolean(answer.error);
    if (card.dataset.name !== answer.name) describe(card, answer);
    if (!answer.error) drawCard(card, answer);
  });
}

function describe(card, answer) {
  card.dataset.name = answer.name;
  const about = aboutOf(answer.name);
  card.querySelector("h2").textContent = about ? about.title : answer.name;
  card.querySelector(".equation").textContent = about ? about.equation : "";
  card.querySelector("details").hidden = !about;
  card.querySelector(".facts").replaceChildren(...(about ? about.facts : []).map((fact) => element("li", fact)));
  if (!about) return;
  const parts = about.about.map((text) => element("p", text));
  if (about.released) parts.push(element("p", `Released code: ${about.released}`));
  card.querySelector(".about").replaceChildren(...parts, element("p", `Source: ${about.source}`));
}

function drawCard(card, answer) {
  drawSteps(card.querySelector(".steps"), answer);
  const mark = (r, c) => (touched === `${r},${c}` ? "here" : ""), many = answer.channels > 1;
  const from = many && answer.cell.channel ? `, for map ${answer.cell.channel + 1} of those it pools` : "";
  for (const [kind, rows, words] of [
    ["slope", answer.cell.slopes, `what this output cell listens to: ∂y/∂x${from}`],
    ["gradient", answer.gradient, "which cells learn from all outputs: ∂Σy/∂x"],
  ]) {
    const figure = card.querySelector(`.${kind}`), full = largest(rows);
    figure.querySelector("figcaption").textContent = `${words}, ${upTo(full)}`;
    drawGrid(figure, rows, full, { name: words, mark, digits: 8, write: tiny, keys: false });
  }
  card.querySelector(".moved").textContent =
    `With the picture moved one cell to the right, around its edge, the outputs change by ${short(answer.moved)} in the mean.` +
    (many ? ` This method looks at several maps: here ${answer.channels}, the picture first, then copies of it moved and mirrored.` : "");
  drawCode(card, answer.code);
}

function drawCode(card, code) {
  for (const face of ["torch", "keras"]) {
    const line = card.querySelector(`.${face}`);
    line.textContent = code[face];
    line.parentNode.hidden = !code[face];
    line.dataset.lines = `${code[`${face}_import`]}\n\n${code[face]}`;
  }
  card.querySelector(".no-keras").textContent = code.no_keras;
}

function drawSteps(box, answer) {
  if (!answer.cell.steps.length) {
    box.replaceChildren(element("p", "This method does not work window by window. The slopes below show what each cell counts."));
    return;
  }
  const places = windowAt(answer.cell.place), at = [];
  for (const r of places[0]) for (const c of places[1]) if (inPicture(r, c)) at.push([r, c]);
  const table = document.createElement("table"), shown = at.slice(0, MANY_COLUMNS);
  table.append(stepRow("xᵢ", shown.map(([r, c]) => last.picture[r][c]), shown));
  for (const step of answer.cell.steps) table.append(stepRow(step.text, step.numbers, shown));
  box.replaceChildren(table);
  if (at.length > shown.length) box.append(element("p", `the first ${shown.length} of ${at.length} cells`));
}

function stepRow(text, numbers, places) {
  const row = document.createElement("tr"), head = element("th", text);
  head.scope = "row";
  row.append(head);
  if (!Array.isArray(numbers)) {
    const cell = element("td", long(numbers));
    cell.colSpan = Math.max(1, places.length);
    cell.className = "whole";
    row.append(cell);
    return row;
  }
  numbers.slice(0, places.length).forEach((number, i) => {
    const cell = element("td", long(number));
    cell.dataset.place = places[i].join(",");
    if (cell.dataset.place === touched) cell.className = "touched";
    row.append(cell);
  });
  return row;
}

function wireCard(card) {
  for (const button of card.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(card.querySelector("." + button.dataset.copy).dataset.lines, button));
  }
}

async function copy(text, button) {
  const before = button.dataset.words || button.textContent;
  button.dataset.words = before;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch (reason) {
    prompt("copy this", text); // browsers give the clipboard to secure pages only
  }
  setTimeout(() => { button.textContent = before; }, 1200);
}

/* ---- pointing, keys, editing ---- */

const OUTPUTS = ["output-0", "output-1", "difference"];
let editing = false, walking = 0;

function wirePointing() {
  $("panels").addEventListener("pointerover", (event) => {
    const cell = event.target.closest(".grid > div");
    if (!cell || !last || $("panels").classList.contains("stale")) return;
    entitle(cell);
    if (OUTPUTS.includes(cell.parentNode.parentNode.id)) look(cell.dataset.place); else touch(cell.dataset.place);
  });
  $("panels").addEventListener("pointerleave", () => touch(""));
  $("cards").addEventListener("pointerover", (event) => {
    const cell = event.target.closest("[data-place]");
    if (cell && cell.value !== undefined) entitle(cell);
    touch(cell ? cell.dataset.place : "");
  });
  $("panels").addEventListener("keydown", onKey);
  $("panels").addEventListener("dblclick", (event) => {
    const cell = event.target.closest("#picture-panel .grid > div");
    if (cell) edit(cell);
  });
  addEventListener("pointerdown", (event) => { if (event.target.id !== "walk") stopWalking(); });
}

function look(place) {
  stopWalking();
  touched = "";
  if (place !== view.cell) change({ cell: place });
}

function touch(place) {
  if (place === touched || !last || editing || $("panels").classList.contains("stale")) return;
  touched = place;
  draw();
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
function onKey(event) {
  if (editing || !last) return;
  const inside = event.target.closest("#picture-panel"), step = STEPS[event.key];
  if (inside && event.key === "Enter") { event.preventDefault(); touch(touched || "0,0"); edit(document.querySelector(`#picture-panel [data-place="${touched}"]`)); return; }
  if (!step) return;
  event.preventDefault();
  stopWalking();
  if (inside) touch(touched ? moved(touched, step, last.picture) : "0,0"); else change({ cell: moved(view.cell, step, outputRows()) });
  $("spoken").textContent = inside ? event.target.getAttribute("aria-label") : "";
}

const outputRows = () => (good()[0] || { values: [[0]] }).values;
function moved(place, [down, right], rows) {
  const [r, c] = pair(place), keep = (n, length) => Math.max(0, Math.min(length - 1, n));
  return `${keep(r + down, rows.length)},${keep(c + right, rows[0].length)}`;
}

function edit(cell) {
  const [r, c] = pair(cell.dataset.place), rows = last.picture.map((row) => [...row]);
  if (!editable() || !inPicture(r, c)) return;
  editing = true;
  const box = document.createElement("input");
  box.value = rows[r][c];
  box.setAttribute("aria-label", `new number for row ${r + 1}, column ${c + 1}`);
  cell.append(box);
  box.select();
  const end = (keep) => {
    if (!editing) return;
    editing = false;
    const number = decimal(box.value);
    box.remove();
    cell.parentNode.focus();
    if (!keep || !box.value.trim()) return;
    if (!isCell(number)) { tell(`"${box.value}" is no number for a cell`); return; }
    rows[r][c] = number;
    change({ picture: "own", cells: rows.map((row) => row.join(",")).join(";"), move: "0,0" });
    fillControls();
  };
  box.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter") end(true);
    if (event.key === "Escape") end(false);
  });
  box.addEventListener("blur", () => end(true));
}

const decimal = (text) => (text.trim() ? Number(text.trim().replace(",", ".").replace("−", "-")) : NaN);

function startWalking() {
  walking = setInterval(() => {
    const rows = outputRows(), [r, c] = pair(view.cell), next = (r * rows[0].length + c + 1) % (rows.length * rows[0].length);
    change({ cell: `${Math.floor(next / rows[0].length)},${next % rows[0].length}` });
  }, 700);
  $("walk").textContent = "❚❚ stop";
  $("walk").setAttribute("aria-pressed", "true");
}

function stopWalking() {
  if (!walking) return;
  clearInterval(walking);
  walking = 0;
  $("walk").textContent = "▶ walk";
  $("walk").setAttribute("aria-pressed", "false");
}
