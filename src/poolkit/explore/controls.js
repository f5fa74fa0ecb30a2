"use strict";
/* The controls: picture, window, two methods with their parameters, draws. */

const spelled = (side) => (side ? view.other : view.method);
const methodBox = (side) => document.querySelector(`.method[data-side="${side}"]`);
const fieldOf = (box) => box.querySelector("input:not([type=range]), select");

function option(value, text) {
  const found = element("option", text);
  found.value = value;
  return found;
}

function fillControls() {
  const pictures = [...known.pictures, ...(view.cells ? [{ name: "own", title: "your own" }] : [])];
  if (view.picture === "map") pictures.push({ name: "map", title: mapTitle() });
  $("picture").replaceChildren(...pictures.map((one) => option(one.name, one.title)));
  $("picture").value = view.picture;
  for (const name in FIELDS) $(name).value = view[name].replace("x", "×");
  if (held) $("window").value = String(heldWindow());
  $("ceil").checked = view.ceil === "1";
  $("training").checked = view.train === "1";
  $("seed").textContent = `seed ${view.seed}: the same seed draws the same`;
  for (const side of [0, 1]) fillMethods(side);
}

const KINDS = { window: "on windows", map: "on whole maps", head: "to one vector" };
function fillMethods(side) {
  const choice = methodBox(side).querySelector("select"), name = nameOf(spelled(side));
  const groups = Object.keys(KINDS).map((kind) => {
    const group = document.createElement("optgroup");
    group.label = KINDS[kind];
    group.append(...known.methods.filter((one) => one.kind === kind).map((one) => option(one.name, one.name)));
    return group;
  });
  const own = name && !aboutOf(name) ? [option(name, name)] : [];
  choice.replaceChildren(...(side ? [option("", "none")] : []), ...own, ...groups.filter((group) => group.children.length));
  choice.value = name;
}

/* ---- parameters ---- */

function fillParameters() {
  for (const side of [0, 1]) {
    const box = methodBox(side).querySelector(".parameters"), answer = last.answers[side], about = answer && aboutOf(answer.name);
    if (!about || !answer.parameters) { box.replaceChildren(); delete box.dataset.name; continue; }
    if (box.dataset.name !== answer.name) {
      box.dataset.name = answer.name;
      box.replaceChildren(...about.parameters.map((one) => parameterControl(one, side)));
    }
    for (const one of box.children) if (!one.contains(document.activeElement)) setParameter(one, answer.parameters[one.dataset.name]);
  }
  const random = last.answers.some((answer) => (aboutOf(answer.name) || {}).random);
  $("draws").hidden = !random || Boolean(held);
  const walks = last.answers.some((answer) => answer.takes_window);
  $("no-window").hidden = walks;
  $("window-box").classList.toggle("unused", !walks);
}

function parameterControl(about, side) {
  const box = element("div", ""), label = element("label", about.name), row = element("div", "");
  box.className = "parameter";
  Object.assign(box.dataset, { name: about.name, kind: about.kind, default: about.default });
  row.className = "row";
  if (about.slider) row.append(sliderOf(about, box));
  const field = about.kind === "choice" ? document.createElement("select") : document.createElement("input");
  if (about.kind === "choice") field.append(...about.choices.map((word) => option(word, word)));
  field.disabled = about.kind === "learned" || Boolean(held && about.kind !== "choice");
  label.htmlFor = field.id = `parameter-${side}-${about.name}`;
  row.append(field);
  const note = element("p", about.says + (about.kind === "learned" ? "; learned, shown where it starts" : ""));
  note.className = "note";
  note.title = about.range;
  box.append(label, row, note);
  box.addEventListener("input", (event) => onParameter(side, box, event.target));
  return box;
}

/* A slider moves over numbers, or over the places of a list of stops. */
function sliderOf(about, box) {
  const slider = document.createElement("input"), [low, high, step] = about.stops ? [0, about.stops.length - 1, 1] : about.slider;
  Object.assign(slider, { type: "range", min: low, max: high, step: step });
  slider.setAttribute("aria-label", `${about.name}, slider`);
  if (about.stops) box.dataset.stops = about.stops.join(" ");
  return slider;
}

/* A learned number is shown as the number that it starts from. */
const plainValue = (text) => text.replace(/^learn@/, "");

function setParameter(box, text) {
  const slider = box.querySelector("[type=range]"), field = fieldOf(box), value = plainValue(text);
  field.value = box.dataset.kind === "number" ? value : text;
  invalid(field, false);
  if (slider) slider.value = box.dataset.stops ? nearestStop(box, value) : value;
}

const stopsOf = (box) => box.dataset.stops.split(" ");
function nearestStop(box, number) {
  const far = stopsOf(box).map((stop) => Math.abs(Number(stop) - Number(number)));
  return far.indexOf(Math.min(...far));
}

/* A parameter changes, and the method is spelled anew with what differs from its defaults. */
function onParameter(side, box, source) {
  const field = fieldOf(box), slider = box.querySelector("[type=range]");
  if (source === slider) field.value = box.dataset.stops ? stopsOf(box)[slider.value] : String(Number(Number(slider.value).toPrecision(6)));
  const value = box.dataset.kind === "number" ? String(decimal(field.value)) : field.value.trim();
  const bad = value === "NaN" || value === "" || /[,:=|]/.test(value);
  invalid(field, bad);
  if (bad) { tell(`${box.dataset.name}: ${box.querySelector(".note").title}`); return; }
  if (slider && source !== slider) slider.value = box.dataset.stops ? nearestStop(box, value) : value;
  const parts = (held ? [box] : [...box.parentNode.children]).map((one) => partOf(one, one === box ? value : null)).filter(Boolean);
  change({ [side ? "other" : "method"]: nameOf(spelled(side)) + (parts.length ? ":" + parts.join(",") : "") });
}

/* `beta=2`, or nothing where a parameter is at its default; of the ones that did not change, as the answer has them. */
function partOf(box, changed) {
  if (box.dataset.kind === "learned") return "";
  const side = Number(box.closest(".method").dataset.side), name = box.dataset.name;
  const value = plainValue(changed === null ? last.answers[side].parameters[name] : changed);
  return value === plainValue(box.dataset.default) ? "" : `${name}=${value}`;
}

/* ---- wiring ---- */

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
  for (const name in FIELDS) {
    $(name).addEventListener("input", () => change({ [name]: $(name).value.trim().replace("×", "x") || DEFAULTS[name] }));
    $(name).addEventListener("keydown", (event) => count(event, name));
  }
  $("ceil").addEventListener("change", () => change({ ceil: $("ceil").checked ? "1" : "" }));
  $("training").addEventListener("change", () => change({ train: $("training").checked ? "1" : "" }));
  $("again").addEventListener("click", () => { change({ train: "1", seed: String((whole(view.seed) + 1) % 1000000000) }); fillControls(); });
  for (const side of [0, 1]) {
    methodBox(side).querySelector("select").addEventListener("change", (event) => {
      change({ [side ? "other" : "method"]: event.target.value, map: "0" });
    });
  }
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("file").addEventListener("change", (event) => { if (event.target.files[0]) takePicture(event.target.files[0]); });
  wireDropping();
}

/* Arrow keys count in a field of the window, along both axes where it has two numbers. */
function count(event, name) {
  const by = { ArrowUp: 1, ArrowDown: -1 }[event.key], least = name === "padding" ? 0 : 1;
  const from = view[name] || (name === "stride" ? view.kernel : name === "padding" ? "0" : "1");
  if (!by || !/^\d{1,6}(x\d{1,6})?$/.test(from)) return;
  event.preventDefault();
  change({ [name]: from.split("x").map((number) => Math.max(least, Number(number) + by)).join("x") });
  $(name).value = view[name].replace("x", "×");
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

/* ---- a picture of one's own ---- */

async function takePicture(file) {
  if (held) { tell(`Your own pictures are pooled by a server on your machine; ${ANY}.`); return; }
  let bitmap;
  try { bitmap = await createImageBitmap(file); } catch (reason) {
    tell(`This file cannot be read as a picture (${file.type || "no type"}): take a PNG, JPEG or WebP.`);
    return;
  }
  if (known.net) {
    const [channels, high, wide] = known.net.shape, pixels = resized(bitmap, wide, high);
    change({ pixels: btoa(channels === 1 ? grey(pixels) : [0, 1, 2].map((c) => bytesOf(pixels, (i) => pixels[i + c])).join("")) });
  } else {
    change({ picture: "own", cells: "grey:" + btoa(grey(resized(bitmap, LARGEST, LARGEST))), cell: "0,0", move: "0,0" });
  }
  fillControls();
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
