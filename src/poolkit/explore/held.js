"use strict";
/* A page that stands alone: what it can show was computed beforehand and lies in it. */

const WINDOW = ["kernel", "stride", "padding", "dilation", "ceil"];
const ANY = "poolkit explore shows any";

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

const heldWindow = () => held.windows.findIndex((one) => WINDOW.every((name) => (one[name] || DEFAULTS[name]) === view[name]));

/* Of an address: what only a server can show is left out. */
function mendHeld() {
  const wrong = ["train", "move", "cells"].filter((name) => view[name] !== DEFAULTS[name]);
  for (const name of wrong) view[name] = DEFAULTS[name];
  if (!held.pictures.some((one) => one.name === view.picture)) view.picture = DEFAULTS.picture;
  if (heldWindow() < 0) { wrong.push("window"); for (const name of WINDOW) view[name] = DEFAULTS[name]; }
  return wrong;
}

function heldScene() {
  const place = `${view.picture}|${heldWindow()}`, answers = [];
  for (const spelling of [view.method, view.other].filter(Boolean)) answers.push(heldAnswer(place, spelling));
  return { window: held.geometries[place], answers, difference: heldDifference(answers) };
}

function heldAnswer(place, spelling) {
  const found = held.answers[`${place}|${spelling}`];
  if (!aboutOf(nameOf(spelling))) throw new Refused(`This page does not hold the method "${nameOf(spelling)}"; ${ANY}.`);
  if (!found) throw new Refused(`This page does not hold ${spelling}: only the values at which its sliders stop, one parameter at a time; ${ANY}.`);
  return found.error ? found : { ...found, cell: heldCell(found) };
}

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
  for (const one of document.querySelectorAll("[data-held]")) one.hidden = false;
  const choice = $("window");
  choice.replaceChildren(...held.windows.map((one, i) => option(String(i), one.title)));
  choice.addEventListener("change", () => {
    const one = held.windows[Number(choice.value)];
    change(Object.fromEntries(WINDOW.map((name) => [name, one[name] || DEFAULTS[name]])));
  });
}
