"use strict";
/* The net of a run: its picture, the maps of each layer, a pool to choose at each place, and the classes. */

const ACROSS = 8; // maps in a row
let net = null, netOf = "";

const places = () => Object.keys(known.net.places);
const poolsNow = () => { const given = view.pools.split("|"); return known.net.pools.map((own, i) => given[i] || own); };

/* Of an address: what this net does not have is left out. */
function mendNet(back) {
  const [layer, number] = view.layer.split(":"), size = known.net.shape.reduce((a, b) => a * b);
  if (whole(view.shown) >= known.net.pictures.length) back("shown");
  if (view.layer && !(layer in known.net.maps && /^\d{1,6}$/.test(number) && Number(number) < known.net.maps[layer])) back("layer");
  if (view.pools && view.pools.split("|").length !== places().length) back("pools");
  let bytes = -1;
  try { bytes = atob(view.pixels).length; } catch (reason) { bytes = -1; }
  if (view.pixels && bytes !== size) back("pixels");
}

async function askNet() {
  const wanted = ["shown", "pixels", "pools", "layer"].map((name) => view[name]).join(" ");
  if (wanted === netOf) return;
  const body = view.pixels ? { pixels: view.pixels } : { picture: whole(view.shown) };
  if (view.pools) body.pools = view.pools.split("|");
  if (view.layer) [body.layer, body.map] = [view.layer.split(":")[0], whole(view.layer.split(":")[1])];
  net = await answerTo(body, "/net");
  netOf = wanted;
  drawNet();
}

/* A page that follows a net begins with a map of it. */
function startNet() {
  $("net").hidden = false;
  const first = element("figure", ""), thumbs = element("div", "");
  thumbs.className = "thumbs";
  known.net.pictures.forEach((packed, i) => {
    const button = element("button", ""), name = known.net.classes[known.net.labels[i]];
    Object.assign(button, { type: "button", title: name });
    button.setAttribute("aria-label", `picture ${i + 1}, ${name}`);
    button.append(document.createElement("canvas"));
    paintPixels(button.firstChild, packed);
    button.addEventListener("click", () => change({ shown: String(i), pixels: "" }));
    thumbs.append(button);
  });
  first.append(document.createElement("figcaption"), document.createElement("canvas"), thumbs);
  $("flow").replaceChildren(first);
}

function beginWithMap() {
  if (view.picture !== DEFAULTS.picture || view.cells || view.layer) return;
  const [place, before] = Object.entries(known.net.places)[0];
  Object.assign(view, { layer: `${before}:0`, picture: "map" }, location.hash ? {} : beside(place));
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
  const flow = $("flow"), [first] = flow.children, number = whole(view.shown);
  first.querySelector("figcaption").replaceChildren(bold("picture"), ` ${view.pixels ? "your own" : known.net.classes[known.net.labels[number]]}`);
  paintPixels(first.querySelector("canvas"), view.pixels || known.net.pictures[number]);
  [...first.querySelectorAll("button")].forEach((one, i) => one.setAttribute("aria-pressed", String(!view.pixels && i === number)));
  net.layers.forEach((layer, i) => drawLayer(flow.children[i + 1] || flow.appendChild(layerFigure(layer)), layer));
  drawClasses(flow.children[net.layers.length + 1] || flow.appendChild(document.createElement("figure")));
}

function layerFigure(layer) {
  const figure = element("figure", ""), canvas = document.createElement("canvas"), caption = element("figcaption", "");
  figure.className = "many";
  caption.append(bold(layer.name), ` ${layer.shape.join("×")}${layer.name in known.net.places ? "" : ", after ReLU"} `);
  if (layer.name in known.net.places) caption.append(placeChooser(layer.name));
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect(), at = (share, length) => Math.min(length - 1, Math.floor(share * length));
    const column = at((event.clientX - box.left) / box.width, ACROSS);
    pickMap(layer.name, at((event.clientY - box.top) / box.height, Math.ceil(layer.shape[0] / ACROSS)) * ACROSS + column);
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -ACROSS, ArrowDown: ACROSS }[event.key], [name, now] = view.layer.split(":");
    if (!step) return;
    event.preventDefault();
    pickMap(layer.name, name === layer.name ? whole(now) + step : 0);
  });
  figure.append(caption, canvas);
  return figure;
}

const placeAfter = (layer) => places().find((place) => known.net.places[place] === layer);
const mapTitle = () => { const [name, number] = view.layer.split(":"); return `map ${whole(number) + 1} of ${name}`; };

function pickMap(name, number) {
  if (number < 0 || number >= known.net.maps[name]) return;
  const changes = { layer: `${name}:${number}`, picture: "map", cells: "", move: "0,0", cell: "0,0", map: "0" }, place = placeAfter(name);
  if (place) Object.assign(changes, { ...beside(place), kernel: "2", stride: "", padding: "", dilation: "", ceil: "" });
  change(changes);
  fillControls();
}

/* The pool that stands at a place, and another one to see the difference: the one that was trained there. */
function beside(place) {
  const i = places().indexOf(place), now = poolsNow()[i], own = known.net.pools[i];
  return { method: now, other: own !== now ? own : nameOf(own) === "max" ? "avg" : "max" };
}

function drawLayer(figure, layer) {
  const [count, high, wide] = layer.shape, canvas = figure.querySelector("canvas"), [name, chosen] = view.layer.split(":");
  const choice = figure.querySelector("select"), at = places().indexOf(layer.name);
  if (choice) choice.value = nameOf(poolsNow()[at]);
  const raw = atob(layer.maps), pen = canvas.getContext("2d"), size = high * wide;
  canvas.width = ACROSS * (wide + 1) - 1;
  canvas.height = Math.ceil(count / ACROSS) * (high + 1) - 1;
  const picked = name === layer.name ? `; map ${whole(chosen) + 1} is the picture below` : "";
  canvas.setAttribute("aria-label", `${count} maps of ${layer.name}${picked}; arrow keys choose one`);
  for (let k = 0; k < count; k++) {
    const image = pen.createImageData(wide, high), marked = name === layer.name && whole(chosen) === k;
    for (let i = 0; i < size; i++) {
      const value = raw.charCodeAt(k * size + i);
      image.data.set(marked ? [value, Math.round(value * 0.45), Math.round(value * 0.75 + 60), 255] : [value, value, value, 255], 4 * i);
    }
    pen.putImageData(image, (k % ACROSS) * (wide + 1), Math.floor(k / ACROSS) * (high + 1));
  }
}

/* Only what can stand where a pool stood is offered. What equals the net's own is no exchange. */
function placeChooser(place) {
  const choice = document.createElement("select"), at = places().indexOf(place), own = known.net.pools[at];
  choice.setAttribute("aria-label", `the pool at ${place}`);
  const names = known.methods.filter((one) => one.placed).map((one) => one.name);
  choice.append(...[...new Set([...names, nameOf(own)])].map((name) => option(name, name)));
  choice.addEventListener("change", () => {
    const chosen = poolsNow().map((now, i) => (i === at ? (choice.value === nameOf(own) ? own : choice.value) : now));
    const exchanged = chosen.map((now, i) => (now === known.net.pools[i] ? "" : now));
    view.pools = exchanged.some(Boolean) ? exchanged.join("|") : "";
    change(placeAfter(view.layer.split(":")[0]) === place ? beside(place) : {});
    fillControls();
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
