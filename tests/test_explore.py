"""The explorer: what a view shows is what the library computes."""

import itertools
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import poolkit
from poolkit import own
from poolkit.window import window

pytest.importorskip("torch")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from poolkit.explore import SCRIPTS, export, server, sliders  # noqa: E402
from poolkit.explore.asked import LARGEST, read  # noqa: E402
from poolkit.explore.scene import one_window, plain, scene  # noqa: E402
from views import PICTURES, only, view  # noqa: E402

GEOMETRIES = (
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": [2, 3], "stride": [1, 2], "padding": "same"},
    {"kernel_size": 2, "stride": 2, "dilation": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": [6, 6]},
)


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
    monkeypatch.setattr(own, "_ALLOWED", set())
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
