"""The explorer: what a view shows is what the library computes, and nobody else may ask for it."""

import asyncio
import errno
import html
import http.client
import itertools
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

import poolkit
from conftest import PATIENCE
from poolkit import own
from poolkit.cli import main
from poolkit.window import window

pytest.importorskip("torch")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from poolkit.explore import SCRIPTS, browser, connection, export, guard, server, sliders  # noqa: E402
from poolkit.explore.asked import LARGEST, read  # noqa: E402
from poolkit.explore.guard import HEADERS, LARGEST_BODY, Door, Guard  # noqa: E402
from poolkit.explore.pictures import pictures  # noqa: E402
from poolkit.explore.scene import one_window, plain, scene  # noqa: E402
from poolkit.explore.worker import Worker  # noqa: E402

PICTURES = {one["name"]: one["cells"] for one in pictures()}
GEOMETRIES = (
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": [2, 3], "stride": [1, 2], "padding": "same"},
    {"kernel_size": 2, "stride": 2, "dilation": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": [6, 6]},
)


def view(name="signs", **values):
    return read({"cells": PICTURES[name], **values})


def only(name="signs", **values):
    """The one answer of a view."""
    (found,) = scene(view(name, **values))["answers"]
    assert "error" not in found, found
    return found


@pytest.mark.parametrize("name", poolkit.WINDOW_METHODS)
def test_outputs_and_steps_are_the_scalar_forms(name):
    method, rows = poolkit.method(name), PICTURES["signs"]
    for geometry in GEOMETRIES:
        values = only(method=name, **geometry)["values"]
        arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in geometry.items()}
        where = window(**arguments, dims=2)
        for place in itertools.product(range(len(values)), range(len(values[0]))):
            want = method.oracle(one_window(rows, where, place), method.values())
            assert values[place[0]][place[1]] == pytest.approx(want, abs=1e-8), (geometry, place)
        last = only(method=name, cell=[0, 1], **geometry)["cell"]
        assert last["steps"][-1]["numbers"] == pytest.approx(last["value"], abs=1e-8)
        assert last["steps"][-1]["text"].startswith("y = ")


@pytest.mark.parametrize("name", poolkit.METHODS)
def test_slopes_are_what_the_output_does_where_a_cell_of_the_picture_changes(name):
    """Through the page's own answers, away from kinks; the gradient is the sum of the slopes of all output cells."""
    rows = [[math.sin(7.0 * r + 3.1 * c * c) + 0.01 * r for c in range(8)] for r in range(8)]
    asked = {"method": name, "kernel_size": 2, "cell": [0, 1], "cells": rows}
    (found,) = scene(read(asked))["answers"]
    assert "error" not in found, found
    place, slopes = found["cell"]["place"], found["cell"]["slopes"]
    # Of several maps the others are copies of the picture: their cells change with it, the slopes are the first map's.
    if found["channels"] == 1:
        for r, c in ((0, 2), (1, 3), (5, 5)):
            values = []
            for step in (1e-4, -1e-4):
                moved = [list(row) for row in rows]
                moved[r][c] += step
                (other,) = scene(read({**asked, "cells": moved}))["answers"]
                values.append(other["values"][place[0]][place[1]])
            assert slopes[r][c] == pytest.approx((values[0] - values[1]) / 2e-4, abs=2e-4)
    if found["maps"] == 1 and len(found["values"]) * len(found["values"][0]) == math.prod(found["shape"]):
        total = [[0.0] * 8 for _ in range(8)]
        for cell in itertools.product(range(len(found["values"])), range(len(found["values"][0]))):
            (one,) = scene(read({**asked, "cell": list(cell)}))["answers"]
            if one["cell"]["channel"]:  # made of another map than the picture
                continue
            total = [
                [t + s for t, s in zip(*pair, strict=True)] for pair in zip(total, one["cell"]["slopes"], strict=True)
            ]
        size = max(1.0, *(abs(v) for row in found["gradient"] for v in row))
        for got, want in zip(sum(total, []), sum(found["gradient"], []), strict=True):
            assert got == pytest.approx(want, abs=1e-6 * size)


@pytest.mark.parametrize(
    "name", [n for n, cls in poolkit.WINDOW_METHODS.items() if cls().draws] + ["strided:at=random"]
)
def test_in_training_the_steps_are_those_of_the_draw_that_the_layer_made(name):
    seen = set()
    for seed in range(6):
        found = only(method=name, training=True, seed=seed, cell=[1, 1], kernel_size=3)
        assert found["cell"]["steps"][-1]["numbers"] == pytest.approx(found["cell"]["value"], abs=1e-7)
        assert found == only(method=name, training=True, seed=seed, cell=[1, 1], kernel_size=3)
        seen.add(json.dumps(found["values"]))
    assert len(seen) > 1, "six seeds draw alike"


def test_two_methods_stand_side_by_side_with_their_difference():
    found = scene(view(method="max", other="avg", kernel_size=3))
    one, other = (answer["values"] for answer in found["answers"])
    for a, b, c in zip(sum(one, []), sum(other, []), sum(found["difference"], []), strict=True):
        assert c == pytest.approx(a - b, abs=1e-8)
    assert scene(view(method="max", other="spp", kernel_size=3))["difference"] is None, "they have other sizes"


def test_what_one_method_cannot_do_is_said_in_its_place():
    found = scene(view("numbers", method="max", other="wavelet", kernel_size=3))
    assert "values" in found["answers"][0] and "wavelet" in found["answers"][1]["error"]


@pytest.mark.parametrize("cells", [[[1e200, -1e200], [0.0, 1e-300]], [[0.0]], [[5.0] * 32] * 32])
def test_every_answer_is_json_whatever_the_cells(cells):
    for name in poolkit.METHODS:
        json.dumps(scene(read({"cells": cells, "method": name, "kernel_size": 1})), allow_nan=False)
    assert plain(math.nan) == "nan" and plain([math.inf, -math.inf]) == ["inf", "-inf"]


BOMBS = (
    "compact-bilinear:d=16000000", "compact-bilinear:d=32768,sketch=maclaurin", "netvlad:clusters=65536",
    "netvlad:clusters=1,ghosts=65536", "lip:logit=bottleneck,width=65536", "mil-attention:width=65536,gated=true",
    "roi-align:boxes=32768,bins=1,samples=64", "latent-attention:latents=4096", "spp:levels=256",
    "superpixel:segments=16777216",
)  # fmt: skip


@pytest.mark.parametrize("spelling", BOMBS)
def test_what_would_take_seconds_or_gigabytes_is_refused_before_it_begins(spelling, monkeypatch):
    import torch

    def never(*_, **__):
        raise AssertionError("a layer was made")

    monkeypatch.setattr("poolkit.explore.scene.Head", never)
    monkeypatch.setattr("poolkit.explore.scene.MapPool2d", never)
    rows = torch.rand(32, 32, generator=torch.Generator().manual_seed(0)).tolist()
    (found,) = scene(read({"cells": rows, "method": spelling}))["answers"]
    assert "the explorer" in found.get("error", ""), found


def test_a_map_is_shown_with_the_slopes_of_the_map_that_it_is_made_of():
    found = only(method="aps", map=2, cell=[1, 1])
    assert found["maps"] == 4 and found["cell"]["channel"] == 2 and any(sum(found["cell"]["slopes"], []))
    assert scene(view(method="aps", other="max", map=2))["difference"] is None, "they are made of other maps"
    boxes = only(method="roi", map=3)
    assert boxes["maps"] == 16 and len(boxes["values"]) == len(boxes["values"][0]) == 7


def test_the_difference_is_that_of_the_outputs_not_of_what_is_shown_of_them():
    found = scene(
        read({"cells": [[123456789.5, 123456789.25]], "method": "max", "other": "min", "kernel_size": [1, 2]})
    )
    assert found["difference"] == [[0.25]]


def test_a_head_pools_a_picture_of_one_cell():
    assert scene(read({"cells": [[3.0]], "method": "mac", "other": "spoc"}))["answers"][0]["values"][0][0] == 3.0


def test_a_method_of_ones_own_is_shown_and_may_fail_in_any_way(tmp_path, monkeypatch):
    (tmp_path / "own_explored.py").write_text(
        "from dataclasses import dataclass\n"
        "from poolkit import Card, WindowMethod, param\n\n\n"
        "@dataclass(frozen=True)\nclass Mine(WindowMethod):\n"
        "    b: float = param(1.0, low=0.0, high=4.0, says='a factor')\n"
        "    card = Card(name='mine', title='Mine', equation='y = b max xᵢ', source='here', family='mine')\n\n"
        "    def reduce(self, w, p):\n        return p.b * w.max(w.x) if p.b < 3 else no_such_name\n\n"
        "    def oracle(self, w, p):\n        return p.b * max(w.x)\n"
    )
    monkeypatch.chdir(tmp_path)
    own.typed("own_explored:Mine")
    found = only("numbers", method="own_explored:Mine:b=2")
    assert found["name"] == "own_explored:Mine" and found["values"][0][0] == 12
    assert [one["name"] for one in sliders.catalogue()][-1] == "own_explored:Mine"
    answers = scene(view("numbers", method="own_explored:Mine:b=4", other="max"))["answers"]
    assert answers[0]["error"].startswith("NameError: ") and answers[1]["values"][0][0] == 6


CASES = {
    "a view is an object": [1],
    'no "kernal_size"': {"kernal_size": 3},
    "1 to 32 rows": {"cells": []},
    "as many numbers": {"cells": [[1, 2], [3]]},
    "every one is a number": {"cells": [[1, "2"]]},
    "of size below": {"cells": [[10**400]]},
    "every row has": {"cells": [[1.0] * (LARGEST + 1)]},
    "kernel_size": {"kernel_size": "two"},
    "at most 32": {"kernel_size": 10**9},
    "larger than the picture": {"kernel_size": 7},
    'padding=\'some\'': {"padding": "some"},
    "a row and a column": {"cell": 3},
    "cell=-1": {"cell": [-1, 0]},
    "seed=": {"seed": 1.5},
    "ceil_mode=1": {"ceil_mode": 1},
    'no pooling method "sotf"': {"method": "sotf"},
    "spelling of a method": {"method": "x" * 501},
    "name it on the command line": {"method": "os:Path"},
}  # fmt: skip


@pytest.mark.parametrize("words", CASES)
def test_a_view_that_cannot_be_is_refused_in_words(words):
    asked = CASES[words]
    with pytest.raises(ValueError) as refused:
        scene(read({"cells": PICTURES["signs"], **asked} if isinstance(asked, dict) else asked))
    assert words in str(refused.value)


def test_a_link_imports_no_code(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("raise SystemExit('this module ran')\n")
    monkeypatch.chdir(tmp_path)
    for spelling in ("mine:Mine", "mine:Mine:b=2", " mine:Mine"):
        with pytest.raises(ValueError, match="of your own"):
            scene(view(method=spelling))
    assert "mine" not in sys.modules and not own.is_allowed("mine:Mine")


@pytest.mark.parametrize("name", poolkit.METHODS)
def test_a_control_offers_only_what_its_method_allows(name):
    cls = poolkit.METHODS[name]
    for control in sliders.entry(cls)["parameters"]:
        declared = cls.params()[control["name"]]
        for word in control.get("choices", ()):
            declared.parse(word)
        for stop in control.get("stops", ()):
            assert sliders.fits(cls, control["name"], declared.parse(stop))
        if "slider" not in control:
            continue
        low, high, step = control["slider"]
        assert low <= declared.default <= high + step and 0 < step < high - low
        for number in (low, high) if "stops" not in control else ():
            declared.accept(int(number) if control["whole"] else float(number))
            assert len(f"{number:g}") <= 5, "a number as one would write it"


# --- the page -----------------------------------------------------------------------------------


def test_the_page_asks_nobody_else_and_makes_no_markup_of_text():
    folder = Path(server.__file__).parent
    for name in ("page.html", "page.css", *SCRIPTS):
        assert not re.search(r"(https?:)?//[\w.]+\.\w", (folder / name).read_text()), f"{name} names an address"
    for name in SCRIPTS:
        text = (folder / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text), name
    page = (folder / "page.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?! src)", page), "the policy of the page forbids it"
    assert re.findall(r'<script src="([^"]+)"', page) == list(SCRIPTS)
    assert sorted(SCRIPTS) == sorted(file.name for file in folder.glob("*.js"))


@pytest.mark.skipif(not shutil.which("node"), reason="no node here")
def test_an_address_holds_the_whole_view(tmp_path):
    """What is written into the address is read from it again, and what no view can have is left out."""
    folder = Path(server.__file__).parent
    script = (
        (folder / "view.js").read_text()
        + """
const location = { hash: "" };
known = { methods: [], pictures: [{ name: "numbers", cells: [[1]] }, { name: "edge", cells: [[1]] }], net: null };
const asked = JSON.parse(process.argv[2]), found = [];
for (const one of asked) {
  view = { ...DEFAULTS, ...one };
  location.hash = address();
  const wrong = readAddress();
  found.push([wrong, Object.fromEntries(Object.keys(one).map((name) => [name, view[name]]))]);
}
console.log(JSON.stringify(found));
"""
    )
    views = [
        {"method": "a:b=1+2%3|4&5#6=ü", "other": "soft:beta=2"},
        {"picture": "own", "cells": "1,-2.5;3e-7,4"},
        {"picture": "own", "cells": "grey:AAECAw=="},
        {"kernel": "2x3", "padding": "same", "ceil": "1", "train": "1", "seed": "7", "cell": "1,2", "move": "-1,3"},
        {"cells": "grey:!!!"}, {"cells": "1,2;3"}, {"cells": "abc"}, {"cells": "1e305"}, {"picture": "nosuch"},
        {"cell": "-3,2"}, {"seed": "99999999999"}, {"map": "x"},
    ]  # fmt: skip
    (tmp_path / "view.js").write_text(script)
    run = subprocess.run(["node", tmp_path / "view.js", json.dumps(views)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for asked, (wrong, found) in zip(views, json.loads(run.stdout), strict=True):
        if len(asked) == 1:
            assert wrong == list(asked) and found != asked, asked
        else:
            assert not wrong and found == asked, (asked, wrong)


def test_a_page_that_stands_alone_holds_what_the_server_would_answer(monkeypatch):
    monkeypatch.setattr(export, "PICTURES", ("signs",))
    monkeypatch.setattr(
        export, "catalogue", lambda: [sliders.entry(poolkit.METHODS[n]) for n in ("soft", "strided", "blur")]
    )
    held = export.everything()
    assert set(held["geometries"]) == {"signs|0", "signs|1"} and len(held["methods"]) == 3
    assert {"soft", "soft:beta=-2", "soft:beta=20", "soft:grad=detached"} <= {k.split("|")[2] for k in held["answers"]}
    assert {"soft:beta=0", "soft:beta=1", "soft:beta=2", "strided:at=last"} <= {
        k.split("|")[2] for k in held["answers"]
    }, "the numbers that one looks for"
    assert not any("error" in one for one in held["answers"].values())
    one = held["answers"]["signs|1|soft"]
    for number, cell in enumerate(one["cells"]):
        want = only(method="soft", kernel_size=3, stride=2, padding=1, cell=[number // 3, number % 3])
        assert cell["value"] == pytest.approx(want["cell"]["value"], rel=1e-4)
        assert sum(cell["slopes"], []) == pytest.approx(sum(want["cell"]["slopes"], []), rel=1e-4, abs=1e-4)
        assert one["values"][number // 3][number % 3] == cell["value"]
    page = export.one_file()
    assert 'src="' not in page and page.count("<script") == 1 + len(SCRIPTS) and '<link rel="stylesheet"' not in page


# --- the net of a run ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("safetensors")
    from poolkit.explore.net import Trained
    from poolkit.lab.data import load
    from poolkit.lab.recipe import Recipe
    from poolkit.lab.train import train

    recipe = Recipe(data="digits", pool="lp:p=learn | max", epochs=1, limit=200)
    folder = tmp_path_factory.mktemp("run")
    return Trained.of(train(recipe, load("digits"), folder))


def test_a_net_is_shown_as_it_computes(trained):
    import torch

    from poolkit.lab.run import predict

    about = trained.about()
    assert about["places"] == {"pool1": "conv1", "pool2": "conv2"} and about["pools"] == ["lp:p=learn@2", "max"]
    found = trained.look({"picture": 3, "layer": "conv1", "map": 5})
    _, want = predict(trained.run, trained.pixels[3].numpy())
    assert found["own"] == found["now"] == pytest.approx(want.tolist(), abs=1e-6)
    assert [layer["name"] for layer in found["layers"]] == ["conv1", "pool1", "conv2", "pool2"]
    # The map that is clicked and the pool after it give the map that the net computed.
    cells = torch.tensor(found["cells"])[None, None]
    with torch.no_grad():
        after = trained.model.pool1.eval()(cells.expand(1, 32, -1, -1))[0, 5]
    assert trained.look({"picture": 3, "layer": "pool1", "map": 5})["cells"] == [
        pytest.approx(row, abs=1e-5) for row in after.tolist()
    ]


def test_other_pools_move_the_classes_and_leave_the_net_as_it_was(trained):
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    layers = [trained.model.pool1, trained.model.pool2]
    changed = trained.look({"pools": ["min", ""]})
    assert changed["own"] != changed["now"] and changed["own"] == trained.look({})["now"]
    assert trained.look({"pools": ["blur", "soft:beta=2"]})["now"] != changed["now"]
    for pool in ("netvlad", "spp", "lip:logit=bottleneck,width=65536"):
        with pytest.raises(ValueError, match="takes no window|the explorer"):
            trained.look({"pools": [pool, ""]})
    assert layers == [trained.model.pool1, trained.model.pool2]
    assert all((trained.model.state_dict()[name] == value).all() for name, value in before.items())


@pytest.mark.parametrize(
    "asked",
    [
        {"picture": -1}, {"picture": 1.0}, {"picture": 24_000}, {"pixels": "AAAA"}, {"pixels": 5}, {"pixels": "*"},
        {"pools": ["max"]}, {"pools": "max"}, {"pools": ["max", 3]}, {"pools": ["os:path", ""]}, {"layer": "dense1"},
        {"layer": ["conv1"]}, {"layer": "conv1", "map": 32}, {"layer": "conv1", "map": True}, {"other": 1}, [], None,
    ],
)  # fmt: skip
def test_a_look_that_cannot_be_is_refused_in_words(trained, asked):
    with pytest.raises(ValueError, match=r"\w+"):
        trained.look(asked)


def test_the_net_is_behind_the_checks(trained):
    app = server.application(AT, trained)
    assert json.loads(call(app, "GET", "/start", GOOD)[2])["net"]["classes"] == trained.run.data["classes"]
    assert len(json.loads(call(app, "POST", "/net", POST)[2])["now"]) == 10
    assert call(app, "POST", "/net", {**POST, "origin": "null"})[0] == 403
    assert call(server.application(AT), "POST", "/net", POST)[0] == 404


# --- who may ask --------------------------------------------------------------------------------

AT = Door(frozenset({"127.0.0.1:8000", "localhost:8000"}), "the-key", "poolkit-8000")
GOOD = {"host": "127.0.0.1:8000", "cookie": "poolkit-8000=the-key"}
POST = {**GOOD, "origin": "http://127.0.0.1:8000", "content-type": "application/json"}
ROUTES = [("GET", path) for path in (*server._FILES, "/start")] + [("POST", "/scene")]


def call(app, method, path, headers, body=b"{}", query=b""):
    """One request of an ASGI application: status, headers, body."""
    sent, waiting = [], [{"type": "http.request", "body": body, "more_body": False}]
    pairs = [(n.encode(), v.encode()) for n, vs in headers.items() for v in ([vs] if isinstance(vs, str) else vs)]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path}
    scope |= {"raw_path": path.encode(), "query_string": query, "headers": pairs, "scheme": "http", "root_path": ""}

    async def receive():
        return waiting.pop(0) if waiting else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(app({**scope, "client": ("127.0.0.1", 5), "server": ("127.0.0.1", 8000)}, receive, send))
    assert sent, "no answer"
    found = {n.decode(): v.decode() for n, v in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(m.get("body", b"") for m in sent[1:])


@pytest.fixture(scope="module")
def app():
    return server.application(AT)


def test_every_route_is_behind_the_checks(app):
    routes = [(m, r.path) for r in app.app.routes for m in r.methods - {"HEAD"}]
    assert sorted(routes) == sorted(ROUTES), "a route that this test does not know"
    bad_hosts = [
        (), "evil.example", "127.0.0.1", "127.0.0.1:8001", "localhost:8000.", "LOCALHOST:8000", "[::1]:8000",
        "localhost:8000@evil.example", ("127.0.0.1:8000", "evil.example"),
    ]  # fmt: skip
    for method, path in ROUTES:
        usual = POST if method == "POST" else GOOD
        assert call(app, method, path, usual, b'{"cells":[[1,2],[3,4]]}')[0] == 200, path
        wrong = [{**usual, "host": host} for host in bad_hosts]
        wrong += [
            {**usual, "cookie": cookie} for cookie in ((), "poolkit-8000=", "poolkit-8000=the-kez", "other=the-key")
        ]
        wrong += [{**usual, "x-forwarded-host": "127.0.0.1:8000", "host": "evil.example"}]
        if method == "POST":
            origins = ((), "null", "http://evil.example", "https://127.0.0.1:8000", "http://127.0.0.1:8001")
            wrong += [{**usual, "origin": origin} for origin in origins]
            wrong += [{**usual, "content-type": kind} for kind in ((), "text/plain", "multipart/form-data")]
        for headers in wrong:
            status, found, body = call(app, method, path, headers)
            assert 400 <= status < 500 and b"class" not in body and "set-cookie" not in found, (path, headers)
        for other in {"GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "HEAD"} - {method}:
            assert 400 <= call(app, other, path, POST)[0] < 500, (path, other)


def test_every_answer_has_the_headers_that_keep_the_page_to_itself(app):
    answers = [call(app, method, path, POST) for method, path in ROUTES] + [
        call(app, "GET", "/", {}), call(app, "GET", "/no-such", GOOD), call(app, "POST", "/scene", POST, b"{"),
    ]  # fmt: skip
    for _, headers, _ in answers:
        assert headers.items() >= HEADERS.items() and not any(name.startswith("access-control") for name in headers)
    assert (
        "'unsafe" not in HEADERS["content-security-policy"]
        and "default-src 'none'" in HEADERS["content-security-policy"]
    )


def test_a_route_that_is_added_is_behind_the_checks_too():
    async def careless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})

    assert call(Guard(careless, AT), "GET", "/new", GOOD)[2] == b"secret"
    assert call(Guard(careless, AT), "GET", "/new", {**GOOD, "host": "evil.example"})[0] == 421
    assert call(Guard(careless, AT), "POST", "/new", GOOD)[0] == 403


def test_the_printed_address_alone_gives_the_cookie(app):
    status, headers, _ = call(app, "GET", "/", {"host": GOOD["host"]}, query=b"key=the-key")
    cookie = headers["set-cookie"]
    assert (
        status == 200
        and cookie.startswith("poolkit-8000=the-key;")
        and "HttpOnly" in cookie
        and "SameSite=Strict" in cookie
    )
    for query in (b"key=the-kez", b"key=", b"key", b"KEY=the-key", b"key=the-key%00", b"x" * 100_000):
        status, headers, _ = call(app, "GET", "/", {"host": GOOD["host"]}, query=query)
        assert status == 403 and "set-cookie" not in headers, query
    assert call(app, "POST", "/scene", {**POST, "cookie": ()}, query=b"key=the-key")[0] == 403
    assert server.door("127.0.0.1", 1).key != server.door("127.0.0.1", 1).key and len(AT.key) < len(
        server.door("h", 1).key
    )


HOSTILE = [
    b"", b"{", b"[]", b"null", b"1e999", b"NaN", b'{"cells":NaN}', b'{"cells":[[NaN]]}', b'{"cells":[[Infinity]]}',
    b"[" * 50_000, b'{"cells":' * 10_000, b"\xff\xfe", b'{"__class__":1}', b'{"cells":{"0":1}}', b'{"cells":[[1e400]]}',
    b'{"cells":[[' + b"9" * 5000 + b"]]}", b'{"cells":[[1]],"method":"../../etc/passwd"}', b'{"cells":1,"method":""}',
    b'{"cells":[[1]],"method":"soft:beta=1e999"}', b'{"cells":[[1]],"method":"<script>alert(1)</script>"}',
    b'{"cells":[[1]],"method":"max\\u0000"}', b'{"cells":[[1]],"method":{}}', b'{"cells":[[1]],"kernel_size":[1,1,1]}',
    b'{"cells":[[1]],"kernel_size":true}', b'{"cells":[[1]],"stride":-1}', b'{"cells":[[1]],"dilation":[0,0]}',
    b'{"cells":[[1]],"cell":[true,0]}', b'{"cells":[[1]],"seed":99999999999999999999}', b'{"cells":[[1]],"map":"a"}',
    b'{"method":"\\ud800"}', b'{"\\ud800":1}',
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_what_no_page_would_send_is_an_error_in_words(app, body):
    status, headers, answer = call(app, "POST", "/scene", POST, body)
    assert status == 400 and headers["content-type"] == "application/json"
    said = json.loads(answer)["error"]
    assert said and "Traceback" not in said and os.sep + "src" not in said and 'File "' not in said


def test_a_long_body_is_refused_before_it_is_read(app):
    assert call(app, "POST", "/scene", {**POST, "content-length": str(LARGEST_BODY + 1)})[0] == 413
    assert call(app, "POST", "/scene", POST, b" " * (LARGEST_BODY + 1))[0] == 413, "a length that was not told"


def test_a_slow_body_is_not_waited_for(monkeypatch):
    assert guard._SECONDS <= 30
    monkeypatch.setattr(guard, "_SECONDS", 0.05)
    sent = []

    async def send(message):
        sent.append(message)

    async def never():
        await asyncio.sleep(PATIENCE)

    headers = [(name.encode(), value.encode()) for name, value in POST.items()]
    scope = {"type": "http", "method": "POST", "path": "/scene", "query_string": b"", "headers": headers}
    asyncio.run(asyncio.wait_for(server.application(AT)(scope, never, send), 60))
    assert sent[0]["status"] == 413


def test_a_long_head_is_refused(app):
    many = {f"x-{n}": "1" for n in range(guard.MOST_FIELDS - len(POST))}
    long = {"x": "1" * (guard.LARGEST_HEAD // 2)}
    body = b'{"cells":[[1,2],[3,4]]}'
    assert call(app, "POST", "/scene", {**POST, **many}, body)[0] == 200
    assert call(app, "POST", "/scene", {**POST, **long}, body)[0] == 200
    for wrong in ({**POST, **many, "x": "1"}, {**POST, **long, "y": long["x"]}, {**POST, "x": ["1"] * 64}):
        assert call(app, "POST", "/scene", wrong, body)[0] == 431


def raising(reason):
    def compute(_):
        raise reason

    return compute


class Wordless(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    "reason, status, words",
    [
        (TypeError("no"), 500, "TypeError: no"),
        (MemoryError(), 500, "MemoryError: MemoryError"),
        (SystemExit("out"), 500, "SystemExit: out"),
        (StopIteration(3), 500, "StopIteration: 3"),
        (KeyboardInterrupt(), 500, "KeyboardInterrupt: KeyboardInterrupt"),
        (Wordless(), 500, "Wordless: Wordless"),
        (TypeError("\ud800"), 500, "TypeError: \\ud800"),
        (OSError(2, "No such file", "/home/a b/secret/net.py"), 500, "FileNotFoundError: [Errno 2] No such file: '…'"),
        (ValueError("read /home/me/x.py: y / x, 1/x is wrong"), 400, "read …: y / x, 1/x is wrong"),
        (ValueError(r"C:\Users\me\x.py, kernel_size=3"), 400, "…, kernel_size=3"),
    ],
    ids=range(10),
)
def test_whatever_a_computation_raises_is_said_hostile_or_not(monkeypatch, reason, status, words):
    monkeypatch.setattr(server, "_scene", raising(reason))
    app = server.application(AT)
    for _ in range(2):  # the thread goes on
        found, headers, answer = call(app, "POST", "/scene", POST)
        assert found == status and json.loads(answer)["error"] == words
        assert headers["content-type"] == "application/json"


def test_one_view_is_computed_at_a_time_and_the_page_is_answered_meanwhile_on_every_route(monkeypatch):
    import torch

    inside, most, threads, go_on = [], [], [], threading.Event()

    def compute(_):
        inside.append(1)
        most.append(len(inside))
        threads.append(torch.get_num_threads())
        go_on.wait(PATIENCE)
        time.sleep(0.02)
        inside.pop()
        return {}

    monkeypatch.setattr(server, "_scene", compute)
    app = server.application(AT)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    asking = [threading.Thread(target=call, args=(app, "POST", "/scene", POST)) for _ in range(5)]
    for one in asking:
        one.start()
    time.sleep(0.2)
    assert all(call(app, "GET", path, GOOD)[0] == 200 for method, path in ROUTES if method == "GET")
    go_on.set()
    for one in asking:
        one.join(PATIENCE)
    torch.set_num_threads(before)
    assert most == threads == [1] * 5


@pytest.mark.parametrize(
    "host, port, address, others",
    [
        ("127.0.0.1", 7, "127.0.0.1", {"127.0.0.1:7", "localhost:7"}),
        ("127.1", 7, "127.0.0.1", {"127.1:7", "127.0.0.1:7", "localhost:7"}),
        ("LOCALHOST", 7, "127.0.0.1", {"127.0.0.1:7", "localhost:7"}),
        ("127.0.0.2", 7, "127.0.0.2", {"127.0.0.2:7"}),
        ("0:0::1", 7, "::1", {"[::1]:7", "localhost:7"}),
        ("Bücher.example", 7, "192.168.0.7", {"xn--bcher-kva.example:7", "192.168.0.7:7"}),
        ("127.0.0.1", 80, "127.0.0.1", {"127.0.0.1:80", "localhost:80", "127.0.0.1", "localhost"}),
    ],
)
def test_the_hosts_are_those_that_a_browser_sends(host, port, address, others):
    at = server.door(host, port, address)
    assert at.hosts == others
    for name in others:
        headers = {"host": [name], "origin": [f"http://{name}"], "content-type": ["application/json"]}
        assert at.refusal("POST", {}, {**headers, "cookie": [f"poolkit-{port}={at.key}"]}) is None


@contextmanager
def serving(monkeypatch, seconds):
    """The server in a thread, whose connections wait so long for a request: where it listens, and its door."""
    monkeypatch.setattr(connection, "SECONDS", seconds)
    with server.listen("127.0.0.1", 0) as found:
        at = server.door(*found.getsockname())
        one = server.prepared(at, None, Worker())
        thread = threading.Thread(target=asyncio.run, args=[one.serve(sockets=[found])])
        thread.start()
        try:
            yield (*found.getsockname(), at.key)
        finally:
            one.should_exit = True
            thread.join(PATIENCE)
        assert not thread.is_alive()


# What is sent at first, and after the answer to it.
IDLE = [
    (b"", b""), (b"GET / HT", b""), (b"GET / HTTP/1.1\r\nHost: x\r\nX: ", b""),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /"),
    (b"POST /scene HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", b"1"),
]  # fmt: skip


@pytest.mark.parametrize("first, then", IDLE, ids=range(len(IDLE)))
def test_idle_connections_shut_nobody_out(monkeypatch, first, then):
    assert connection.SECONDS <= 30
    with serving(monkeypatch, 1.5) as where:
        idle = [socket.create_connection(where[:2], timeout=PATIENCE) for _ in range(40)]
        for one in idle:
            one.sendall(first)
            if then:
                one.recv(10_000)
                with suppress(OSError):  # one of too many is closed
                    one.sendall(then)
        assert ask(where, "GET", "/start")[0] == 503, "so many connections at a time are no page's"
        for one in idle:
            with one:  # until the server closes it
                with suppress(ConnectionResetError):
                    while one.recv(10_000):
                        pass
        assert ask(where, "GET", "/start")[0] == 200


def test_a_connection_that_is_being_answered_is_not_idle(monkeypatch):
    def compute(_):
        time.sleep(1)
        return {}

    monkeypatch.setattr(server, "_scene", compute)
    with serving(monkeypatch, 0.2) as where:
        assert ask(where, "POST", "/scene", "{}") == (200, b"{}")


# --- the command --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """The command in a process of its own: its host, its port and its key."""
    folder = tmp_path_factory.mktemp("explore")
    command = [sys.executable, "-m", "poolkit", "explore", "soft:beta=2", "max", "--no-open"]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=folder)
    line = process.stdout.readline()
    found = re.fullmatch(
        r"explorer: http://(127\.0\.0\.1):(\d+)/\?key=([\w-]{32})#method=soft:beta=2&other=max\n", line
    )
    assert found, line + (folder / "said").read_text()
    yield found[1], int(found[2]), found[3]
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and rest == "", "Ctrl-C ends it, and that is no error"
    said = (folder / "said").read_text()
    assert "ended" in said and found[3] not in said and "Traceback" not in said, said


def ask(running, method, path, body=None, **headers):
    host, port, key = running
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    headers = {
        "Cookie": f"poolkit-{port}={key}",
        "Origin": f"http://{host}:{port}",
        "Content-Type": "application/json",
        **headers,
    }
    connection.request(method, path, body, headers)
    with closing(connection):
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_the_command_serves_the_page_and_its_views(running):
    status, page = ask(running, "GET", f"/?key={running[2]}", Cookie="")
    assert status == 200 and b"page.js" in page
    assert [ask(running, "GET", path)[0] for path in ("/page.js", "/page.css", "/start")] == [200, 200, 200]
    status, answer = ask(running, "POST", "/scene", json.dumps({"cells": PICTURES["numbers"], "method": "soft"}))
    assert status == 200 and json.loads(answer)["answers"] == [only("numbers", method="soft")]


RAW = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"TRACE / HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"CONNECT evil.example:80 HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"POST /scene HTTP/1.1\r\nHost: HERE\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"POST /scene HTTP/1.1\r\nHost: HERE\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"GET /%00%2e%2e/etc/passwd HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"GET /../../../etc/passwd HTTP/1.1\r\nHost: HERE\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: HERE\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: YWJj\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    b"\xff" * 1000 + b"\r\n\r\n",
]  # fmt: skip


def test_an_answer_does_not_wait_for_more():
    with server.listen("127.0.0.1", 0) as found:
        assert found.proto == socket.IPPROTO_TCP, "asyncio leaves Nagle's waiting on: 40 ms for each view"


def test_raw_bytes_end_no_server(running):
    host, port, key = running
    allowed = f"{host}:{port}\r\nCookie: poolkit-{port}={key}\r\nOrigin: http://{host}:{port}"
    allowed += "\r\nContent-Type: application/json"
    for raw in RAW:
        answer = b""
        with socket.create_connection((host, port), timeout=PATIENCE) as connected:
            connected.sendall(raw.replace(b"HERE", allowed.encode()))
            try:
                answer = connected.recv(100_000)
            except ConnectionResetError:  # what was not read of a long line may overtake the answer
                assert len(raw) > 50_000
        usual = rb"(200|4\d\d)" if b"Upgrade" in raw else rb"4\d\d"  # who cannot upgrade may answer as usual
        assert re.match(rb"HTTP/1\.1 " + usual + rb" ", answer) or len(raw) > 50_000, (raw[:60], answer[:200])
        assert b"root:" not in answer
    assert ask(running, "GET", "/start")[0] == 200


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium here")
def test_a_browser_shows_it(running, tmp_path, monkeypatch):
    host, port, key = running
    address = f"http://{host}:{port}/?key={key}#method=soft&other=lp:p=3&kernel=3&stride=2&padding=1&cell=1,2"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
    files = []
    monkeypatch.setattr(webbrowser, "open", files.append)
    with browser.opened(address):  # through the file that leads there
        limit = time.monotonic() + PATIENCE
        while not files and time.monotonic() < limit:
            time.sleep(0.01)
        command += ["--virtual-time-budget=20000", "--dump-dom", *files]
        page = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout
    want = [
        only("numbers", method=m, kernel_size=3, stride=2, padding=1, cell=[1, 2])["cell"]["value"]
        for m in ("soft", "lp:p=3")
    ]
    assert f"output row 2, column 3: soft {want[0]:.4g}, lp:p=3 {want[1]:.4g}" in page
    assert "5 of 9 windows reach over the edge" in page and "Σ |xᵢ|ᵖ" in page and page.count("data-place") > 150


def test_what_cannot_be_explored_is_said(capsys):
    def refused(*words, code):
        assert main(["explore", "--no-open", *words]) == code
        return capsys.readouterr().err

    assert "one method or two" in refused("max", "avg", "min", code=2)
    assert "nearest: soft" in refused("sotf", code=2)
    assert "name the address" in refused("--host", "0.0.0.0", code=2)  # noqa: S104
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "cannot be had" in refused("--port", str(taken.getsockname()[1]), code=1)


def test_what_is_not_installed_is_named():
    code = "import sys; sys.modules['uvicorn'] = None; from poolkit.cli import main; sys.exit(main(['explore']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1 and "wants uvicorn" in done.stderr and 'pip install "poolkit[explore]"' in done.stderr


@pytest.mark.parametrize("host", ["0", "0x0", "0.0", "::", "[::]", "", "::ffff:0.0.0.0"])
def test_a_host_that_stands_for_every_address_is_refused(monkeypatch, capsys, host):
    monkeypatch.setattr(server, "serve", lambda at, found, net: found.close())
    assert main(["explore", "--no-open", "--host", host]) == 2
    assert "name the address" in capsys.readouterr().err


def test_what_to_do_about_a_host_that_cannot_be_had_is_said(monkeypatch, capsys):
    def refused(*words):
        assert main(["explore", "--no-open", *words]) == 1
        return capsys.readouterr().err

    for host in ("no-such.invalid", "a" * 70, "192.0.2.1"):
        for words in (["--host", host], ["--host", host, "--port", "8123"]):
            said = refused(*words)
            assert "--host takes an address" in said and "--port out" not in said
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "leave --port out" in refused("--port", str(taken.getsockname()[1]))

    def denied(host, port):
        raise OSError(errno.EACCES, "denied")

    monkeypatch.setattr(server, "listen", denied)
    assert "--port out" in refused("--port", "80") and "--port out" not in refused()


@pytest.mark.parametrize(
    "host, shown", [("127.1", "127.1"), ("LOCALHOST", "localhost"), ("127.0.0.2", "127.0.0.2"), ("::1", "[::1]")]
)
def test_a_host_of_this_machine_is_served_under_the_name_given(monkeypatch, capsys, host, shown):
    got = []
    monkeypatch.setattr(server, "serve", lambda at, found, net: got.append((at, found)))
    if host == "::1":
        try:
            server.listen("::1", 0).close()
        except OSError:
            pytest.skip("no IPv6 here")
    assert main(["explore", "--no-open", "--host", host]) == 0
    said, ((at, found),) = capsys.readouterr(), got
    with found:
        port = found.getsockname()[1]
        assert said.out.startswith(f"explorer: http://{shown}:{port}/?key=") and f"{shown}:{port}" in at.hosts
        assert "warning" not in said.err
        with socket.create_connection(found.getsockname()[:2], timeout=PATIENCE):
            pass


def test_a_host_that_others_reach_warns(monkeypatch, capsys):
    monkeypatch.setattr(server, "serve", lambda at, found, net: found.close())
    monkeypatch.setattr(server, "is_this_machine", lambda address: False)
    assert main(["explore", "--no-open"]) == 0
    assert "unencrypted" in capsys.readouterr().err
    monkeypatch.undo()
    assert not any(map(server.is_this_machine, ("192.168.0.7", "fe80::1%eth0", "2001:db8::1")))


def test_an_option_of_the_socket_shares_no_port_where_it_would(monkeypatch):
    with server.listen("127.0.0.1", 0) as found:
        assert found.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) or os.name != "posix"
    monkeypatch.setattr(server.os, "name", "nt")
    with server.listen("127.0.0.1", 0) as found:
        assert not found.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


def test_a_browser_that_blocks_stops_nothing_and_its_command_line_holds_no_key(monkeypatch, capsys):
    opened, served = [], []
    is_there, go_on = threading.Event(), threading.Event()

    def blocks(address):
        opened.append((address, threading.current_thread().daemon))
        is_there.set()
        go_on.wait(PATIENCE)

    def serves(at, found, net):
        found.close()
        assert is_there.wait(PATIENCE), "nothing was opened"
        file = Path(url2pathname(urlsplit(opened[0][0]).path))
        served.append((file, at, file.read_text(), file.stat().st_mode))

    monkeypatch.setattr(webbrowser, "open", blocks)
    monkeypatch.setattr(server, "serve", serves)
    assert main(["explore", "soft", "max"]) == 0
    go_on.set()
    ((file, at, text, mode),) = served
    ((address, daemon),) = opened
    assert daemon and at.key not in address and not file.exists()
    assert os.name != "posix" or mode & 0o777 == 0o600
    printed = capsys.readouterr().out.split()[1]
    assert at.key in printed and f'content="0;url={html.escape(printed)}"' in text


SLOW = """
import sys, time
from poolkit.cli import main
from poolkit.explore import server

def slow(values):
    import torch

    sys.stderr.write("computing\\n")
    sys.stderr.flush()
    cells = torch.ones(1200, 1200, requires_grad=True)
    while time.sleep(WAIT) is None:  # WAIT 0: always amid torch's own code
        (cells @ cells).sum().backward()

server._scene = slow
sys.exit(main(["explore", "--no-open"]))
"""


@pytest.mark.skipif(os.name != "posix", reason="no signals here")
@pytest.mark.parametrize("sent, wait", [("{}", 0), ("{}", 1000), (None, 0)], ids=["computing", "waiting", "reading"])
def test_the_command_ends_by_ctrl_c_whatever_it_does(tmp_path, sent, wait):
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW.replace("(WAIT)", f"({wait})")], stdout=subprocess.PIPE, stderr=said, text=True
        )
    found = re.search(r"//(127\.0\.0\.1):(\d+)/\?key=([\w-]+)", process.stdout.readline())
    host, port, key = found[1], int(found[2]), found[3]
    ask((host, port, key), "GET", "/start")
    with socket.create_connection((host, port), timeout=PATIENCE) as connected:
        head = f"POST /scene HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: poolkit-{port}={key}\r\n"
        head += f"Origin: http://{host}:{port}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        connected.sendall((head + (sent or "{")).encode())
        limit = time.monotonic() + PATIENCE
        while sent and "computing" not in (tmp_path / "said").read_text() and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)  # two seconds where nothing else runs
    said = (tmp_path / "said").read_text()
    assert process.returncode == 0 and said.split("\n", 1)[0] == "Ctrl-C ends it" and said.endswith("ended\n"), said
    assert "Traceback" not in said and "Cancel" not in said, said


def test_what_a_page_that_stands_alone_cannot_hold_is_refused_before_it_is_computed(monkeypatch, tmp_path, capsys):
    def never():
        raise AssertionError("it is computed")

    monkeypatch.setattr(export, "everything", never)
    file = str(tmp_path / "page.html")
    for words, said in [
        ([str(tmp_path / "none" / "page.html")], f"{tmp_path / 'none'}: there is no such folder"),
        ([str(tmp_path)], "is a folder"),
        ([file, "soft", "max"], f"such as {file}#method=soft&other=max"),
        ([file, "--run", str(tmp_path)], "leave --run out"),
        ([file, "--port", "8123"], "leave --port and --host out"),
        ([file, "--host", "localhost"], "leave --port and --host out"),
    ]:
        assert main(["explore", "--export", *words]) == 2
        assert said in capsys.readouterr().err
    monkeypatch.setattr(export, "everything", dict)
    assert main(["explore", "--export", file]) == 0
    assert "about a quarter of a minute" in capsys.readouterr().err and "held" in Path(file).read_text()
