"use strict";
/* The view: what the page shows, the address that holds all of it, and asking for what it needs.
   The page draws what was computed for it, by the server or, in a page that stands alone, beforehand: no mathematics here. */

const DEFAULTS = {
  method: "soft", other: "max", picture: "numbers", cells: "", kernel: "2", stride: "", padding: "", dilation: "", ceil: "",
  cell: "0,0", map: "0", train: "", seed: "0", move: "0,0",
  shown: "0", pixels: "", pools: "", layer: "",
};
const LARGEST = 32; // cells of a picture along an axis
const FIELDS = { kernel: "kernel_size", stride: "stride", padding: "padding", dilation: "dilation" };
const NO_ANSWER = "No answer: the server has ended. Start it again with poolkit explore, and open the address that it prints.";

const $ = (id) => document.getElementById(id);
let view = { ...DEFAULTS }; // what is asked for
let last = null; // what is drawn: the latest answer, with the picture that it is about
let known = { methods: [], pictures: [] }; // what the page was told once
let held = null; // of a page that stands alone: everything it can show

/* ---- the address ---- */

function readAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  view = { ...DEFAULTS };
  if ("method" in given && !("other" in given)) view.other = "";
  for (const name in given) if (name in DEFAULTS) view[name] = given[name];
  return mend();
}

/* Put what no view can have back to where it begins; the names of what was wrong. */
function mend() {
  const wrong = [], back = (name, value = DEFAULTS[name]) => { wrong.push(name); view[name] = value; };
  if (view.cells && !readCells(view.cells)) back("cells");
  for (const name of ["map", "seed", "shown"]) if (!/^\d{1,9}$/.test(view[name])) back(name);
  for (const name of ["cell", "move"]) if (!/^-?\d{1,6},-?\d{1,6}$/.test(view[name]) || (name === "cell" && view.cell.includes("-"))) back(name);
  if (known.net) mendNet(back);
  else Object.assign(view, { shown: "0", pixels: "", pools: "", layer: "" });
  if (view.cells) view.picture = "own";
  else if (view.picture === "map" ? !view.layer : !known.pictures.some((one) => one.name === view.picture)) back("picture");
  return wrong;
}

function address() {
  const words = [`method=${view.method}`, `other=${view.other}`];
  for (const name in DEFAULTS) {
    if (name !== "method" && name !== "other" && view[name] !== DEFAULTS[name]) words.push(`${name}=${view[name]}`);
  }
  return "#" + words.map((word) => encodeURI(word.toWellFormed ? word.toWellFormed() : word).replace(/[#&+]/g, encodeURIComponent)).join("&");
}

let addressTimer = 0;
function writeAddress() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => history.replaceState(null, "", address()), 120);
}

function change(changes) {
  Object.assign(view, changes);
  note = "";
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

/* Rows of numbers, or nothing where a text holds none. */
function readCells(text) {
  let rows = null;
  if (text.startsWith("grey:")) {
    try {
      const bytes = Uint8Array.from(atob(text.slice(5)), (letter) => letter.charCodeAt(0)), side = Math.round(Math.sqrt(bytes.length));
      if (side * side === bytes.length) rows = Array.from({ length: side }, (_, r) => [...bytes.slice(r * side, (r + 1) * side)].map((byte) => Math.round((byte / 255) * 1000) / 1000));
    } catch (reason) { return null; }
  } else rows = text.split(";").map((row) => row.split(",").map((word) => (word.trim() ? Number(word) : NaN)));
  const fits = (list) => list.length >= 1 && list.length <= LARGEST;
  const good = rows && fits(rows) && fits(rows[0]) && rows.every((row) => row.length === rows[0].length && row.every(isCell));
  return good ? rows : null;
}

const isCell = (number) => Number.isFinite(number) && Math.abs(number) < 1e300;

/* ---- asking: one request at a time, the latest view wins ---- */

class Refused extends Error {}

let busy = false, again = false, note = "";
async function ask() {
  again = true;
  if (busy) return;
  busy = true;
  try {
    while (again) {
      again = false;
      await once();
    }
  } finally { busy = false; }
}

async function once() {
  const said = [];
  if (known.net) await askNet().catch((reason) => said.push(words(reason)));
  if (known.net && !net && view.pools) { // a link with a pool that cannot stand there
    view.pools = "";
    await askNet().catch((reason) => said.push(words(reason)));
    fillControls();
  }
  try {
    const picture = cells(), found = held ? heldScene() : await answerTo(request(picture));
    last = { ...found, picture };
    $("panels").classList.remove("stale");
    draw();
  } catch (reason) {
    $("panels").classList.add("stale");
    said.push(words(reason));
  }
  tell(said.join("\n") || note);
}

function words(reason) {
  if (!(reason instanceof Refused)) throw reason;
  return reason.message;
}

async function answerTo(body, where = "/scene") {
  let reply, found;
  try {
    reply = await fetch(where, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const json = (reply.headers.get("content-type") || "").startsWith("application/json");
    found = json ? await reply.json() : { error: await reply.text() };
  } catch (reason) { throw new Refused(NO_ANSWER); }
  if (found.error) throw new Refused(found.error);
  return found;
}

function request(picture) {
  const body = { cells: picture, method: view.method, cell: pair(view.cell), map: whole(view.map), seed: whole(view.seed) };
  if (view.other) body.other = view.other;
  for (const name in FIELDS) if (view[name]) body[FIELDS[name]] = sizes(view[name]);
  body.ceil_mode = view.ceil === "1";
  body.training = view.train === "1";
  return body;
}

/* What cannot be read is sent as it is: the server says what is wrong with it. */
function sizes(text) {
  const parts = text.trim().split(/[x×, ]+/).map((part) => (/^\d{1,9}$/.test(part) ? Number(part) : part));
  return parts.length > 1 ? parts : parts[0];
}

const pair = (text) => { const [a, b] = text.split(",").map((n) => parseInt(n, 10)); return [a || 0, b || 0]; };
const whole = (text) => Math.max(0, parseInt(text, 10) || 0);

/* An error in the page's words; the field that it is about is marked. */
function tell(text) {
  const box = $("error");
  box.textContent = text.replace(/kernel_size/g, "size");
  box.hidden = !text;
  for (const name in FIELDS) invalid($(name), new RegExp(`\\b${FIELDS[name]}=`).test(text));
}

const invalid = (field, bad) => (bad ? field.setAttribute("aria-invalid", "true") : field.removeAttribute("aria-invalid"));
const aboutOf = (name) => known.methods.find((one) => one.name === name);
const nameOf = (spelling) => {
  const first = spelling.split(":")[0];
  return aboutOf(first) ? first : spelling.split(":").slice(0, 2).join(":");
};
