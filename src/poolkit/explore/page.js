"use strict";
/* The beginning: the page is told what there is, and shows the view of its address. */

async function begin() {
  wireControls();
  wirePointing();
  wireTools();
  if ($("held")) known = held = await unpack($("held").textContent);
  else if (!(await meetServer())) return;
  if (held) limitControls();
  if (known.net) startNet();
  showAddress();
}

/* The key in the address has done its work when the page is here. */
async function meetServer() {
  history.replaceState(null, "", "/" + location.hash);
  let reply = null;
  try { reply = await fetch("/start"); } catch (reason) { tell(NO_ANSWER); return false; }
  if (!reply.ok) { tell(await reply.text()); return false; }
  known = await reply.json();
  return true;
}

/* Show the view that stands in the address. */
function showAddress() {
  const wrong = [...readAddress(), ...(held ? mendHeld() : [])];
  if (known.net) beginWithMap();
  note = wrong.length ? `Of this address could not be read, and is left out: ${[...new Set(wrong)].join(", ")}.` : "";
  fillControls();
  ask();
}

function wireTools() {
  $("walk").addEventListener("click", () => (walking ? stopWalking() : startWalking()));
  $("link").addEventListener("click", () => copy(location.href.split("#")[0] + address(), $("link")));
  $("reset").addEventListener("click", () => {
    const { method, other, picture, cells, shown, pixels, layer } = view;
    change({ ...DEFAULTS, method: nameOf(method), other: other && nameOf(other), picture, cells, shown, pixels, layer });
    fillControls();
  });
  addEventListener("hashchange", showAddress);
}

begin();
