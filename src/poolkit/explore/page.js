"use strict";
/* The page keeps a view and draws what was computed for it, by the server or, in a page that stands alone, beforehand.
   The whole view stands in the address. No mathematics here. */

const DEFAULTS = {
  method: "soft", other: "max", picture: "numbers", cells: "", kernel: "2", stride: "", padding: "", dilation: "", ceil: "",
  cell: "0,0", map: "0", train: "", seed: "0", move: "0,0",
  shown: "0", pixels: "", pools: "", layer: "",
};
const LARGEST = 32, MANY_COLUMNS = 64, NARROW = 7;
const $ = (id) => document.getElementById(id);
let view = { ...DEFAULTS }, known = { methods: [], pictures: [] }, last = null, walking = 0, editing = false;

/* ---- the view and its address ---- */

function readAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  view = { ...DEFAULTS };
  if ("method" in given && !("other" in given)) view.other = "";
  for (const name in given) if (name in DEFAULTS) view[name] = given[name];
}

function address() {
  const words = [`method=${view.method}`, `other=${view.other}`];
  for (const name in DEFAULTS) {
    if (name !== "method" && name !== "other" && view[name] !== DEFAULTS[name]) words.push(`${name}=${view[name]}`);
  }
  return "#" + words.map((word) => encodeURI(word).replace(/[#&+]/g, encodeURIComponent)).join("&");
}

let addressTimer = 0;
function writeAddress() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => history.replaceState(null, "", address()), 120);
}

function change(changes) {
  Object.assign(view, changes);
  writeAddress();
  ask();
}

/* ---- the picture ---- */

function cells() {
  let rows = view.cells ? readCells(view.cells) : view.picture === "map" && net ? net.cells : null;
  if (!rows) rows = (known.pictures.find((one) => one.name === view.picture) || known.pictures[0]).cells;
  const [down, right] = pair(view.move);
  const turn = (list, by) => list.map((_, i) => list[(((i - by) % list.length) + list.length) % list.length]);
  return turn(rows, down).map((row) => turn(row, right));
}

function readCells(text) {
  if (text.startsWith("grey:")) {
    const bytes = Uint8Array.from(atob(text.slice(5)), (letter) => letter.charCodeAt(0));
    const side = Math.round(Math.sqrt(bytes.length));
    return Array.from({ length: side }, (_, r) => Array.from({ length: side }, (_, c) => round(bytes[r * side + c] / 255)));
  }
  const rows = text.split(";").map((row) => row.split(",").map(Number));
  return rows.every((row) => row.length === rows[0].length && row.every(Number.isFinite)) ? rows : null;
}

/* The middle of a picture, as large as wanted, on white: red, green, blue, alpha, pixel by pixel. */
function resized(bitmap, wide, high) {
  const scale = Math.max(wide / bitmap.width, high / bitmap.height), canvas = document.createElement("canvas");
  canvas.width = wide;
  canvas.height = high;
  const pen = canvas.getContext("2d"), across = bitmap.width * scale, down = bitmap.height * scale;
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "white";
  pen.fillRect(0, 0, wide, high);
  pen.drawImage(bitmap, (wide - across) / 2, (high - down) / 2, across, down);
  return pen.getImageData(0, 0, wide, high).data;
}

function bytesOf(pixels, value) {
  let bytes = "";
  for (let i = 0; i < pixels.length; i += 4) bytes += String.fromCharCode(Math.round(value(i)));
  return bytes;
}

const grey = (pixels) => bytesOf(pixels, (i) => 0.299 * pixels[i] + 0.587 * pixels[i + 1] + 0.114 * pixels[i + 2]);

async function takePicture(file) {
  if (held) { tell(`your own pictures are pooled by a server on your machine; ${ANY}`); return; }
  try {
    const bitmap = await createImageBitmap(file);
    if (known.net) {
      const [channels, high, wide] = known.net.shape, pixels = resized(bitmap, wide, high);
      change({ pixels: btoa(channels === 1 ? grey(pixels) : [0, 1, 2].map((c) => bytesOf(pixels, (i) => pixels[i + c])).join("")) });
      return;
    }
    const bytes = grey(resized(bitmap, LARGEST, LARGEST));
    change({ picture: "own", cells: "grey:" + btoa(bytes), cell: "0,0", move: "0,0" });
    fillControls();
  } catch (reason) {
    tell(`this file cannot be read as a picture (${file.type || "no type"}): take a PNG, JPEG or WebP`);
  }
}

/* ---- asking the server: one request at a time, the latest view wins ---- */

const NO_ANSWER = "no answer: the server has ended. Start it again with poolkit explore, and open the address that it prints.";
let busy = false, again = false;
async function ask() {
  if (busy) { again = true; return; }
  busy = true;
  do {
    again = false;
    try {
      if (known.net) await askNet();
      const found = held ? heldScene() : await answerTo(request());
      if (found.error) tell(found.error); else { tell(""); last = found; draw(); }
    } catch (reason) {
      if (!(reason instanceof NetError || reason instanceof TypeError)) throw reason;
      tell(reason instanceof NetError ? reason.message : NO_ANSWER);
    }
  } while (again);
  busy = false;
}

async function answerTo(body, where = "/scene") {
  const headers = { "Content-Type": "application/json" };
  const reply = await fetch(where, { method: "POST", headers, body: JSON.stringify(body) });
  return (reply.headers.get("content-type") || "").startsWith("application/json") ? reply.json() : { error: await reply.text() };
}

function request() {
  const body = { cells: cells(), method: view.method, cell: pair(view.cell), map: whole(view.map), seed: whole(view.seed) };
  if (view.other) body.other = view.other;
  const names = { kernel: "kernel_size", stride: "stride", padding: "padding", dilation: "dilation" };
  for (const name in names) if (view[name]) body[names[name]] = sizes(view[name]);
  body.ceil_mode = view.ceil === "1";
  body.training = view.train === "1";
  return body;
}

/* ---- a page that stands alone ---- */

let held = null;
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

const WINDOW = ["kernel", "stride", "padding", "dilation", "ceil"];
const heldWindow = () => held.windows.findIndex((one) => WINDOW.every((name) => (one[name] || DEFAULTS[name]) === view[name] || one[name] === view[name]));

function heldScene() {
  const number = heldWindow(), place = `${view.picture}|${number}`, answers = [];
  if (!held.geometries[place] || view.cells || view.move !== "0,0") return { error: `this page holds a few pictures and windows; ${ANY}` };
  for (const spelling of [view.method, view.other].filter(Boolean)) {
    const found = held.answers[`${place}|${spelling}`];
    if (!found) return { error: `this page does not hold ${spelling}: only the values at which its sliders stop, one parameter at a time; ${ANY}` };
    if (found.refused) return { error: found.refused };
    answers.push(found.error ? found : { ...found, cell: heldCell(found) });
  }
  return { window: held.geometries[place], answers, difference: heldDifference(answers) };
}

const ANY = "poolkit explore shows any";
function heldCell(answer) {
  const [r, c] = pair(view.cell), rows = answer.values;
  return answer.cells[Math.min(r, rows.length - 1) * rows[0].length + Math.min(c, rows[0].length - 1)];
}

function heldDifference(answers) {
  const [one, other] = answers.map((answer) => answer.values);
  if (!one || !other || one.length !== other.length || one[0].length !== other[0].length) return null;
  return one.map((row, r) => row.map((value, c) => Number((value - other[r][c]).toPrecision(4))));
}

function limitControls() {
  for (const one of document.querySelectorAll("[data-live]")) one.hidden = true;
  const choice = $("window");
  choice.replaceChildren(...held.windows.map((one, i) => option(String(i), one.title)));
  choice.parentNode.hidden = false;
  choice.addEventListener("change", () => {
    const one = held.windows[Number(choice.value)];
    change(Object.fromEntries(WINDOW.map((name) => [name, one[name] || DEFAULTS[name]])));
  });
}

/* What cannot be read is sent as it is: the server says what is wrong with it. */
function sizes(text) {
  const parts = text.trim().split(/[x×, ]+/).map((part) => (/^\d+$/.test(part) ? Number(part) : part));
  return parts.length > 1 ? parts : parts[0];
}

const pair = (text) => { const [a, b] = text.split(",").map((n) => parseInt(n, 10)); return [a || 0, b || 0]; };
const whole = (text) => Math.max(0, parseInt(text, 10) || 0);
const round = (number) => Math.round(number * 1000) / 1000;

function tell(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

/* ---- drawing ---- */

function short(number) {
  if (typeof number !== "number") return number;
  const size = Math.abs(number);
  if (size !== 0 && (size < 0.01 || size >= 100000)) return signed(number.toExponential(1).replace("e+", "e"));
  return signed(String(Number(number.toPrecision(size >= 1000 ? 5 : 3))));
}

/* Two digits after the point, for small grids: .25, −.02, 1. */
function tiny(number) {
  if (typeof number !== "number" || number === 0 || Math.abs(number) >= 9.995) return short(number);
  return signed(String(Number(number.toFixed(2))).replace(/^(-?)0\./, "$1.")).replace(/^−?0$/, number < 0 ? "−0" : "+0");
}

const signed = (text) => text.replace(/-/g, "−");
/* Four digits, for the steps. */
function long(number) {
  if (typeof number !== "number") return number;
  const size = Math.abs(number);
  const text = size !== 0 && (size < 0.0001 || size >= 1000000) ? number.toExponential(2).replace("e+", "e") : String(Number(number.toPrecision(4)));
  return signed(text);
}
const largest = (...grids) => Math.max(1e-300, ...grids.flat(2).filter((v) => typeof v === "number").map(Math.abs));

/* One grid of numbers. `frame`: cells outside the picture, before and after, along each axis. */
function drawGrid(figure, rows, full, { frame = [[0, 0], [0, 0]], name, mark = () => "", active = null, digits = 12, write }) {
  let grid = figure.querySelector(".grid");
  const [[top, bottom], [left, right]] = frame, high = rows.length + top + bottom, wide = rows[0].length + left + right;
  if (!grid) {
    grid = figure.appendChild(document.createElement("div"));
    grid.className = "grid";
    grid.tabIndex = 0;
    grid.setAttribute("role", "grid");
  }
  if (grid.dataset.shape !== `${high}x${wide}`) {
    grid.dataset.shape = `${high}x${wide}`;
    grid.style.gridTemplateColumns = `repeat(${wide}, minmax(0, 1fr))`;
    grid.classList.toggle("spaced", wide <= 20);
    grid.style.setProperty("--digits", `min(1.05rem, calc(100cqw / ${wide} / ${wide <= NARROW ? 4.3 : 2.6}))`);
    grid.replaceChildren(...Array.from({ length: high * wide }, () => document.createElement("div")));
    for (const cell of grid.children) { cell.appendChild(document.createElement("span")); cell.setAttribute("role", "gridcell"); }
  }
  grid.setAttribute("aria-label", name);
  let place = 0;
  for (let r = -top; r < rows.length + bottom; r++) {
    for (let c = -left; c < rows[0].length + right; c++) {
      const inside = r >= 0 && c >= 0 && r < rows.length && c < rows[0].length;
      paint(grid.children[place++], inside ? rows[r][c] : null, full, r, c, mark(r, c), wide <= digits ? write || (wide <= NARROW ? short : tiny) : null, figure.id);
    }
  }
  if (active) grid.setAttribute("aria-activedescendant", `${figure.id}-${active[0]}-${active[1]}`);
  return grid;
}

function paint(cell, value, full, r, c, mark, write, owner) {
  cell.className = (value === null ? "outside " : "") + mark;
  cell.dataset.place = `${r},${c}`;
  if (owner) cell.id = `${owner}-${r}-${c}`;
  const number = typeof value === "number" ? value : 0;
  cell.style.setProperty("--tone", number < 0 ? "var(--less)" : "var(--more)");
  cell.style.setProperty("--strength", ((0.72 * Math.abs(number)) / full).toFixed(3));
  const text = value === null ? "" : write ? write(value) : typeof value !== "number" ? value : "";
  if (cell.firstChild.textContent !== text) cell.firstChild.textContent = text;
  const said = value === null ? "outside" : long(value);
  cell.setAttribute("aria-label", `row ${r + 1}, column ${c + 1}: ${said}`);
  cell.title = `row ${r + 1}, column ${c + 1}: ${said}`;
}

const has = (list, value) => list.indexOf(value) >= 0;
const windowAt = (place) => last.window.axes.map((axis, i) => axis.windows[Math.min(place[i], axis.windows.length - 1)]);

function pictureMark(place) {
  const [rows, columns] = last.window.axes.map((axis) => new Set(axis.windows.flat()));
  const own = windowed() ? windowAt(place) : [[], []];
  return (r, c) =>
    (windowed() && !(rows.has(r) && columns.has(c)) && inPicture(r, c) ? "unread " : "") +
    (has(own[0], r) && has(own[1], c) ? "window " : "") + (touched === `${r},${c}` ? "here" : "");
}

const inPicture = (r, c) => r >= 0 && c >= 0 && r < last.window.axes[0].length && c < last.window.axes[1].length;
const windowed = () => last.answers.some((answer) => answer.windows);

/* The outputs that read the cell of the picture under the mouse. */
function reads(r, c) {
  if (!touched || !windowed()) return false;
  const [row, column] = pair(touched), [rows, columns] = last.window.axes;
  return r < rows.windows.length && c < columns.windows.length && has(rows.windows[r], row) && has(columns.windows[c], column);
}

let touched = "";
function draw() {
  const good = last.answers.filter((answer) => !answer.error);
  const place = good.length ? good[0].cell.place : pair(view.cell);
  const picture = cells(), full = largest(picture, ...good.map((answer) => answer.values));
  drawPicture(picture, full, place);
  for (const side of [0, 1]) drawOutput(side, last.answers[side], full);
  drawDifference(place);
  drawCards(picture);
  fillParameters();
  const where = windowed() ? last.window.words : "";
  const said = good.map((answer) => `${answer.spelling} ${long(answer.cell.value)}`).join(", ");
  $("words").textContent = `${where}${where ? "\n" : ""}output row ${place[0] + 1}, column ${place[1] + 1}: ${said}`;
}

function drawPicture(picture, full, place) {
  const frame = windowed() ? last.window.axes.map((axis) => [axis.before, axis.after]) : undefined;
  const figure = $("picture-panel");
  figure.querySelector("figcaption").replaceChildren(
    bold("picture"), ` ${picture.length}×${picture[0].length}`, element("i", legend(picture)));
  if (!editing) drawGrid(figure, picture, full, { frame, name: "the picture", mark: pictureMark(place) });
}

function legend(picture) {
  const [rows, columns] = last.window.axes, parts = picture[0].length <= 12 && !held ? ["double-click to change a number"] : [];
  const read = (axis) => new Set(axis.windows.flat().filter((n) => n >= 0 && n < axis.length)).size;
  if (windowed() && rows.before + rows.after + columns.before + columns.after) parts.push("hatched: outside, never counted");
  if (windowed() && (read(rows) < rows.length || read(columns) < columns.length)) parts.push("struck through: in no window");
  return parts.join(" · ");
}

function drawOutput(side, answer, full) {
  const figure = $(`output-${side}`);
  figure.hidden = !answer;
  if (!answer) return;
  const caption = figure.querySelector("figcaption"), grid = figure.querySelector(".grid");
  if (grid) grid.hidden = Boolean(answer.error);
  if (answer.error) { caption.replaceChildren(bold(answer.spelling), " ", answer.error); return; }
  const of = answer.maps > 1 ? ` · map ${Math.min(whole(view.map), answer.maps - 1) + 1} of ` : "";
  const title = (known.methods.find((one) => one.name === answer.name) || {}).title || "";
  caption.replaceChildren(bold(answer.spelling), ` ${answer.shape.join("×")}`, of);
  if (answer.maps > 1) caption.append(mapChooser(answer));
  caption.append(element("i", title));
  const mark = (r, c) => (r === answer.cell.place[0] && c === answer.cell.place[1] ? "here" : reads(r, c) ? "touched" : "");
  drawGrid(figure, answer.values, full, { name: `output of ${answer.spelling}`, mark, active: answer.cell.place });
}

function mapChooser(answer) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `${answer.maps} ›`;
  button.setAttribute("aria-label", "show the next map");
  button.addEventListener("click", () => change({ map: String((Math.min(whole(view.map), answer.maps - 1) + 1) % answer.maps) }));
  return button;
}

function drawDifference(place) {
  const figure = $("difference");
  figure.hidden = !last.difference;
  if (figure.hidden) return;
  const [one, other] = last.answers, full = largest(last.difference);
  figure.querySelector("figcaption").replaceChildren(bold("difference"), ` up to ${short(full < 1e-200 ? 0 : full)}`, element("i", `${one.spelling} − ${other.spelling}`));
  const mark = (r, c) => (r === place[0] && c === place[1] ? "here" : reads(r, c) ? "touched" : "");
  drawGrid(figure, last.difference, full, { name: "difference of the outputs", mark, active: place });
}

function bold(text) {
  const found = document.createElement("b");
  found.textContent = text;
  return found;
}

function drawCards(picture) {
  const box = $("cards");
  while (box.children.length > last.answers.length) box.lastChild.remove();
  last.answers.forEach((answer, side) => {
    let card = box.children[side];
    if (!card) { box.append($("card").content.cloneNode(true)); card = box.children[side]; wireCard(card, side); }
    card.hidden = Boolean(answer.error);
    if (card.dataset.name !== answer.name) describe(card, answer);
    if (!answer.error) drawCard(card, answer, picture, side);
  });
}

function describe(card, answer) {
  card.dataset.name = answer.name;
  const about = known.methods.find((one) => one.name === answer.name);
  card.querySelector("h2").textContent = about ? about.title : answer.name;
  card.querySelector(".equation").textContent = about ? about.equation : "";
  card.querySelector("details").hidden = !about;
  card.querySelector(".facts").replaceChildren(...(about ? about.facts : []).map((fact) => element("li", fact)));
  if (!about) return;
  const parts = about.about.map((text) => element("p", text));
  if (about.released) parts.push(element("p", `Released code: ${about.released}`));
  card.querySelector(".about").replaceChildren(...parts, element("p", `Source: ${about.source}`));
}

function element(name, text) {
  const found = document.createElement(name);
  found.textContent = text;
  return found;
}

function drawCard(card, answer, picture, side) {
  drawSteps(card.querySelector(".steps"), answer);
  const [slope, gradient] = [card.querySelector(".slope"), card.querySelector(".gradient")];
  slope.id = `slope-${side}`;
  gradient.id = `gradient-${side}`;
  const mark = (r, c) => (touched === `${r},${c}` ? "here" : "");
  drawGrid(slope, answer.cell.slopes, largest(answer.cell.slopes), { name: "slopes of this output cell", mark, digits: 8, write: tiny });
  drawGrid(gradient, answer.gradient, largest(answer.gradient), { name: "gradient of all outputs", mark, digits: 8, write: tiny });
  const more = answer.channels > 1 ? ` It pools ${answer.channels} maps here: the picture, and copies of it moved and mirrored.` : "";
  card.querySelector(".moved").textContent = `Move the picture one cell to the right, and an output cell changes by ${short(answer.moved)} in the mean.${more}`;
  card.querySelector(".torch").textContent = answer.code.torch;
  card.querySelector(".keras").textContent = answer.code.keras;
  card.querySelector(".no-keras").textContent = answer.code.no_keras;
  card.querySelector(".keras").parentNode.hidden = !answer.code.keras;
}

function drawSteps(box, answer) {
  if (!answer.cell.steps.length) {
    box.replaceChildren(element("p", "This method does not work window by window. The slopes below show what each cell counts."));
    return;
  }
  const places = windowAt(answer.cell.place), at = [];
  for (const r of places[0]) for (const c of places[1]) if (inPicture(r, c)) at.push(`${r},${c}`);
  const table = document.createElement("table");
  const shown = at.slice(0, MANY_COLUMNS), values = shown.map((one) => { const [r, c] = pair(one); return cells()[r][c]; });
  table.append(stepRow("xᵢ", values, shown));
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
    cell.style.textAlign = "left";
    row.append(cell);
    return row;
  }
  numbers.slice(0, places.length).forEach((number, i) => {
    const cell = element("td", long(number));
    cell.dataset.place = places[i];
    if (places[i] === touched) cell.className = "touched";
    row.append(cell);
  });
  return row;
}

/* ---- the net of a run ---- */

let net = null, netOf = "";
async function askNet() {
  const wanted = ["shown", "pixels", "pools", "layer"].map((name) => view[name]).join("|");
  if (wanted === netOf) return;
  const body = view.pixels ? { pixels: view.pixels } : { picture: whole(view.shown) };
  if (view.pools) body.pools = view.pools.split("|");
  if (view.layer) [body.layer, body.map] = [view.layer.split(":")[0], whole(view.layer.split(":")[1] || "0")];
  const found = await answerTo(body, "/net");
  if (found.error) throw new NetError(found.error);
  netOf = wanted;
  net = found;
  drawNet();
}

class NetError extends Error {}

function startNet() {
  $("net").hidden = false;
  const first = document.createElement("figure"), thumbs = element("div", "");
  thumbs.className = "thumbs";
  known.net.pictures.forEach((packed, i) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = known.net.classes[known.net.labels[i]];
    button.setAttribute("aria-label", `picture ${i + 1}, ${button.title}`);
    button.append(document.createElement("canvas"));
    paintPixels(button.firstChild, packed);
    button.addEventListener("click", () => change({ shown: String(i), pixels: "" }));
    thumbs.append(button);
  });
  first.append(document.createElement("figcaption"), document.createElement("canvas"), thumbs);
  $("flow").replaceChildren(first);
}

function paintPixels(canvas, packed) {
  const [channels, high, wide] = known.net.shape, raw = atob(packed), pen = canvas.getContext("2d");
  canvas.width = wide;
  canvas.height = high;
  const image = pen.createImageData(wide, high), size = wide * high;
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = raw.charCodeAt((channels === 3 ? c : 0) * size + i);
    image.data[4 * i + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
}

function drawNet() {
  const flow = $("flow"), [first] = flow.children, label = view.pixels ? "your own picture" : known.net.classes[known.net.labels[whole(view.shown)]];
  first.querySelector("figcaption").replaceChildren(bold("picture"), ` ${label}`);
  paintPixels(first.querySelector("canvas"), view.pixels || known.net.pictures[whole(view.shown)]);
  [...first.querySelectorAll("button")].forEach((one, i) => one.setAttribute("aria-pressed", String(!view.pixels && i === whole(view.shown))));
  net.layers.forEach((layer, i) => drawLayer(flow.children[i + 1] || flow.appendChild(layerFigure(layer)), layer));
  const bars = flow.children[net.layers.length + 1] || flow.appendChild(document.createElement("figure"));
  drawClasses(bars);
}

function layerFigure(layer) {
  const figure = document.createElement("figure"), canvas = document.createElement("canvas");
  figure.className = "many";
  figure.append(document.createElement("figcaption"));
  canvas.tabIndex = 0;
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect(), [, high, wide] = layer.shape;
    const at = (share, length) => Math.floor((share * length) / 1);
    const column = Math.min(ACROSS - 1, at((event.clientX - box.left) / box.width, ACROSS));
    const row = at((event.clientY - box.top) / box.height, Math.ceil(layer.shape[0] / ACROSS));
    pickMap(layer.name, row * ACROSS + column);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -ACROSS, ArrowDown: ACROSS }[event.key];
    if (!step) return;
    event.preventDefault();
    const [name, now] = view.layer.split(":");
    pickMap(layer.name, (name === layer.name ? whole(now) : 0) + step);
  });
  figure.append(canvas);
  return figure;
}

const ACROSS = 8;
function pickMap(name, number) {
  const layer = net.layers.find((one) => one.name === name);
  if (number < 0 || number >= layer.shape[0]) return;
  const place = Object.keys(known.net.places).find((one) => known.net.places[one] === name);
  const changes = { layer: `${name}:${number}`, picture: "map", cells: "", move: "0,0", cell: "0,0", map: "0" };
  if (place) Object.assign(changes, { ...beside(place), kernel: "2", stride: "", padding: "", dilation: "", ceil: "" });
  change(changes);
  fillControls();
}

/* The pool that stands at a place, and another one to see the difference: the one that was trained there. */
function beside(place) {
  const now = poolAt(place), own = known.net.pools[placeNumber(place)];
  return { method: now, other: own !== now ? own : nameOf(own) === "max" ? "avg" : "max" };
}

const placeNumber = (place) => Object.keys(known.net.places).indexOf(place);
const poolAt = (place) => (view.pools ? view.pools.split("|")[placeNumber(place)] : "") || known.net.pools[placeNumber(place)];

function drawLayer(figure, layer) {
  const caption = figure.querySelector("figcaption"), [count, high, wide] = layer.shape, canvas = figure.querySelector("canvas");
  if (!caption.firstChild) {
    caption.append(bold(layer.name), ` ${count}×${high}×${wide}${layer.name in known.net.places ? "" : ", after ReLU"} `);
    if (layer.name in known.net.places) caption.append(placeChooser(layer.name));
  }
  if (layer.name in known.net.places) caption.querySelector("select").value = nameOf(poolAt(layer.name));
  const rows = Math.ceil(count / ACROSS), raw = atob(layer.maps), pen = canvas.getContext("2d"), size = high * wide;
  canvas.width = ACROSS * (wide + 1) - 1;
  canvas.height = rows * (high + 1) - 1;
  const [name, chosen] = view.layer.split(":");
  canvas.setAttribute("aria-label", `${count} maps of ${layer.name}; arrow keys choose one`);
  for (let k = 0; k < count; k++) {
    const image = pen.createImageData(wide, high), marked = name === layer.name && whole(chosen) === k;
    for (let i = 0; i < size; i++) {
      const value = raw.charCodeAt(k * size + i);
      image.data.set(marked ? [value, Math.round(value * 0.45), Math.round(value * 0.75 + 60), 255] : [value, value, value, 255], 4 * i);
    }
    pen.putImageData(image, (k % ACROSS) * (wide + 1), Math.floor(k / ACROSS) * (high + 1));
  }
}

function placeChooser(place) {
  const choice = document.createElement("select");
  choice.setAttribute("aria-label", `the pool at ${place}`);
  const fit = known.methods.filter((one) => one.kind !== "head").map((one) => one.name);
  choice.append(...[...new Set([...fit, nameOf(poolAt(place))])].map((name) => option(name, name)));
  choice.addEventListener("change", () => {
    const pools = Object.keys(known.net.places).map((one) => (one === place ? choice.value : view.pools ? poolAt(one) : ""));
    const own = known.net.pools[placeNumber(place)];
    pools[placeNumber(place)] = nameOf(own) === choice.value ? "" : choice.value;
    change({ pools: pools.some(Boolean) ? pools.join("|") : "" });
  });
  return choice;
}

function drawClasses(figure) {
  const caption = element("figcaption", ""), box = element("div", ""), same = !view.pools;
  caption.append(bold("classes"), same ? ` with ${known.net.pools.join(" and ")}, as trained` : " wide: now; narrow: as trained");
  box.className = "bars";
  known.net.classes.forEach((name, i) => {
    const bar = element("div", ""), wide = element("i", ""), narrow = element("b", ""), label = element("span", name);
    bar.className = "bar";
    wide.style.width = `${100 * net.now[i]}%`;
    narrow.style.width = `${100 * net.own[i]}%`;
    if (!view.pixels && i === known.net.labels[whole(view.shown)]) label.className = "true";
    bar.append(wide, ...(same ? [] : [narrow]));
    box.append(label, bar, element("span", `${(100 * net.now[i]).toFixed(1)} %`));
  });
  figure.replaceChildren(caption, box);
}

/* ---- pointing, keys, editing ---- */

const OUTPUTS = ["output-0", "output-1", "difference"];

function wirePointing() {
  $("panels").addEventListener("pointerover", (event) => {
    const cell = event.target.closest(".grid > div");
    if (!cell || !last) return;
    if (OUTPUTS.includes(cell.parentNode.parentNode.id)) look(cell.dataset.place); else touch(cell.dataset.place);
  });
  $("panels").addEventListener("pointerleave", () => touch(""));
  $("cards").addEventListener("pointerover", (event) => {
    const cell = event.target.closest("[data-place]");
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
  if (place === touched || !last || editing) return;
  touched = place;
  draw();
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
function onKey(event) {
  if (editing || !last) return;
  const inside = event.target.closest("#picture-panel");
  if (inside && event.key === "Enter" && touched) { event.preventDefault(); edit($(`picture-panel-${touched.replace(",", "-")}`)); return; }
  const step = STEPS[event.key];
  if (!step) return;
  event.preventDefault();
  stopWalking();
  if (inside) touch(moved(touched || "0,0", step, touched ? cells() : null)); else change({ cell: moved(view.cell, step, outputRows()) });
}

const outputRows = () => (last.answers.find((answer) => !answer.error) || { values: [[0]] }).values;
function moved(place, [down, right], rows) {
  if (!rows) return place;
  const [r, c] = pair(place), keep = (n, length) => Math.max(0, Math.min(length - 1, n));
  return `${keep(r + down, rows.length)},${keep(c + right, rows[0].length)}`;
}

function edit(cell) {
  const [r, c] = pair(cell.dataset.place), rows = cells();
  if (held || !inPicture(r, c) || rows[0].length > 12) return;
  editing = true;
  const box = document.createElement("input");
  box.value = rows[r][c];
  box.setAttribute("aria-label", `new number for row ${r + 1}, column ${c + 1}`);
  cell.append(box);
  box.select();
  const end = (keep) => {
    if (!editing) return;
    editing = false;
    const number = Number(box.value.replace(",", "."));
    box.remove();
    cell.parentNode.focus();
    if (keep && box.value.trim() && Number.isFinite(number)) {
      rows[r][c] = number;
      change({ picture: "own", cells: rows.map((row) => row.join(",")).join(";"), move: "0,0" });
      fillControls();
    }
  };
  box.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Enter") end(true);
    if (event.key === "Escape") end(false);
  });
  box.addEventListener("blur", () => end(true));
}

/* ---- controls ---- */

function fillControls() {
  const pictures = [...known.pictures, ...(view.cells ? [{ name: "own", title: "your own" }] : [])];
  if (view.picture === "map") pictures.push({ name: "map", title: `map ${view.layer.replace(":", " ")}` });
  $("picture").replaceChildren(...pictures.map((one) => option(one.name, one.title)));
  $("picture").value = view.cells ? "own" : view.picture;
  for (const name of ["kernel", "stride", "padding", "dilation"]) $(name).value = view[name].replace("x", "×");
  if (held) $("window").value = String(heldWindow());
  $("ceil").checked = view.ceil === "1";
  $("training").checked = view.train === "1";
  $("seed").textContent = `seed ${view.seed}: the same seed draws the same`;
  for (const side of [0, 1]) fillMethods(side);
}

function option(value, text) {
  const found = element("option", text);
  found.value = value;
  return found;
}

const spelled = (side) => (side ? view.other : view.method);
const nameOf = (spelling) => {
  const first = spelling.split(":")[0];
  return known.methods.some((one) => one.name === first) ? first : spelling.split(":").slice(0, 2).join(":");
};
const methodBox = (side) => document.querySelector(`.method[data-side="${side}"]`);

function fillMethods(side) {
  const choice = methodBox(side).querySelector("select"), kinds = { window: "on windows", map: "on whole maps", head: "to one vector" };
  if (!choice.options.length) {
    if (side) choice.append(option("", "none"));
    for (const kind in kinds) {
      const group = document.createElement("optgroup");
      group.label = kinds[kind];
      group.append(...known.methods.filter((one) => one.kind === kind).map((one) => option(one.name, one.name)));
      choice.append(group);
    }
  }
  const name = nameOf(spelled(side));
  if (name && ![...choice.options].some((one) => one.value === name)) choice.append(option(name, name));
  choice.value = name;
}

function fillParameters() {
  for (const side of [0, 1]) {
    const box = methodBox(side).querySelector(".parameters"), answer = last.answers[side];
    const about = answer && known.methods.find((one) => one.name === answer.name);
    if (!about) { box.replaceChildren(); delete box.dataset.name; continue; }
    if (box.dataset.name !== answer.name) {
      box.dataset.name = answer.name;
      box.replaceChildren(...about.parameters.map((one) => parameterControl(one, side)));
    }
    for (const one of box.children) if (!one.contains(document.activeElement)) setParameter(one, answer.parameters[one.dataset.name]);
  }
  const random = last.answers.some((answer) => known.methods.some((one) => one.name === answer.name && one.random));
  $("draws").hidden = !random || Boolean(held);
}

function parameterControl(about, side) {
  const box = document.createElement("div"), id = `parameter-${side}-${about.name}`;
  box.className = "parameter";
  Object.assign(box.dataset, { name: about.name, kind: about.kind, default: about.default });
  const label = element("label", about.name), row = document.createElement("div");
  label.htmlFor = id;
  row.className = "row";
  if (about.slider) {
    const [low, high, step] = about.stops ? [0, about.stops.length - 1, 1] : about.slider, slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: low, max: high, step: step });
    if (about.stops) box.dataset.stops = about.stops.join(" ");
    slider.setAttribute("aria-label", `${about.name}, slider`);
    row.append(slider);
  }
  const field = about.kind === "choice" ? document.createElement("select") : document.createElement("input");
  if (about.kind === "choice") field.append(...about.choices.map((word) => option(word, word)));
  if (about.kind === "learned") { field.disabled = true; field.title = "learned; shown where it starts"; }
  if (about.stops && about.kind !== "choice") field.disabled = true;
  field.id = id;
  row.append(field);
  const note = about.kind === "learned" ? `${about.says}; learned, shown where it starts` : about.says;
  box.append(label, row, element("p", note));
  box.lastChild.className = "note";
  box.lastChild.title = about.range;
  box.addEventListener("input", (event) => onParameter(side, box, event.target));
  return box;
}

function setParameter(box, text) {
  const [slider, field] = [box.querySelector("[type=range]"), box.querySelector("input:not([type=range]), select")];
  const number = text.replace(/^learn@/, "").replace(/^learn$/, box.dataset.default.replace(/^learn@?/, ""));
  field.value = box.dataset.kind === "number" ? number : text;
  if (slider && number !== "") slider.value = box.dataset.stops ? nearestStop(box, number) : number;
}

const stopsOf = (box) => box.dataset.stops.split(" ");
function nearestStop(box, number) {
  const far = stopsOf(box).map((stop) => Math.abs(Number(stop) - Number(number)));
  return far.indexOf(Math.min(...far));
}

function onParameter(side, box, source) {
  const field = box.querySelector("input:not([type=range]), select"), slider = box.querySelector("[type=range]");
  if (source === slider) field.value = box.dataset.stops ? stopsOf(box)[slider.value] : String(Number(Number(slider.value).toPrecision(4)));
  else if (slider && field.value !== "" && Number.isFinite(Number(field.value))) slider.value = field.value;
  if (field.value.trim() === "") return;
  const parts = [];
  for (const one of held ? [box] : box.parentNode.children) {
    const value = one.querySelector("input:not([type=range]), select").value.trim();
    const plain = one.dataset.default.replace(/^learn@/, "");
    if (one.dataset.kind !== "learned" && value !== plain && value !== one.dataset.default) parts.push(`${one.dataset.name}=${value}`);
  }
  const spelling = nameOf(spelled(side)) + (parts.length ? ":" + parts.join(",") : "");
  change(side ? { other: spelling } : { method: spelling });
}

function wireControls() {
  $("picture").addEventListener("change", (event) => {
    if (event.target.value !== "own" && event.target.value !== "map") change({ picture: event.target.value, cells: "", cell: "0,0", move: "0,0" });
    fillControls();
  });
  for (const button of document.querySelectorAll("[data-move]")) {
    button.addEventListener("click", () => {
      const [a, b] = pair(view.move), [down, right] = pair(button.dataset.move);
      change({ move: `${a + down},${b + right}` });
    });
  }
  for (const name of ["kernel", "stride", "padding", "dilation"]) {
    $(name).addEventListener("input", () => change({ [name]: $(name).value.trim().replace("×", "x") || DEFAULTS[name] }));
    $(name).addEventListener("keydown", (event) => count(event, name));
  }
  $("ceil").addEventListener("change", () => change({ ceil: $("ceil").checked ? "1" : "" }));
  $("training").addEventListener("change", () => change({ train: $("training").checked ? "1" : "" }));
  $("again").addEventListener("click", () => { change({ train: "1", seed: String(whole(view.seed) + 1) }); fillControls(); });
  for (const side of [0, 1]) {
    methodBox(side).querySelector("select").addEventListener("change", (event) => {
      change({ ...(side ? { other: event.target.value } : { method: event.target.value }), map: "0" });
    });
  }
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("file").addEventListener("change", (event) => { if (event.target.files[0]) takePicture(event.target.files[0]); });
  wireDropping();
}

/* Arrow keys count in a field of the window. */
function count(event, name) {
  const by = { ArrowUp: 1, ArrowDown: -1 }[event.key], least = name === "padding" ? 0 : 1;
  const from = view[name] || (name === "stride" ? view.kernel : name === "padding" ? "0" : "1");
  if (!by || !/^\d+$/.test(from)) return;
  event.preventDefault();
  change({ [name]: String(Math.max(least, Number(from) + by)) });
  $(name).value = view[name];
}

function wireDropping() {
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("over"); });
  addEventListener("dragleave", () => document.body.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    if (event.dataTransfer.files[0]) takePicture(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files][0];
    if (file) takePicture(file);
  });
}

function wireTools() {
  $("walk").addEventListener("click", () => (walking ? stopWalking() : startWalking()));
  $("link").addEventListener("click", () => copy(location.href.split("#")[0] + address(), $("link")));
  $("reset").addEventListener("click", () => {
    const { method, other, picture, cells: own } = view;
    change({ ...DEFAULTS, method: nameOf(method), other: other && nameOf(other), picture, cells: own });
    fillControls();
  });
  addEventListener("hashchange", () => { readAddress(); fillControls(); ask(); });
}

function startWalking() {
  walking = setInterval(() => {
    const rows = outputRows(), [r, c] = pair(view.cell), next = r * rows[0].length + c + 1;
    const at = next % (rows.length * rows[0].length);
    change({ cell: `${Math.floor(at / rows[0].length)},${at % rows[0].length}` });
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

function wireCard(card) {
  for (const button of card.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(card.querySelector("." + button.dataset.copy).textContent, button));
  }
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch (reason) {
    prompt("copy this", text); // browsers give the clipboard to secure pages only
  }
  setTimeout(() => { button.textContent = before; }, 1200);
}

async function begin() {
  readAddress();
  wireControls();
  wirePointing();
  wireTools();
  if ($("held")) known = held = await unpack($("held").textContent);
  else known = await meetServer();
  if (held) limitControls();
  if (known.net) startNet();
  if (known.net && view.picture === DEFAULTS.picture && !view.cells && !view.layer) {
    const [place, before] = Object.entries(known.net.places)[0];
    Object.assign(view, { layer: `${before}:0`, picture: "map" }, location.hash ? {} : beside(place));
  }
  fillControls();
  ask();
}

async function meetServer() {
  history.replaceState(null, "", "/" + location.hash); // the key has done its work
  const reply = await fetch("/start");
  if (!reply.ok) tell(await reply.text());
  return reply.ok ? reply.json() : known;
}

begin();
