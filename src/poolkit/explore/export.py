"""The explorer as one file that needs no server: what the page can ask is computed beforehand, by the same functions.

Such a page holds a few pictures and windows, and each method with the values at which its sliders stop, one parameter
away from its default at a time.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import poolkit
from poolkit.explore import SCRIPTS
from poolkit.explore.asked import read
from poolkit.explore.pictures import pictures
from poolkit.explore.sliders import catalogue, fits, round_step
from poolkit.parameters import spell

PICTURES = ("numbers", "signs", "edge")
WINDOWS = (
    {"title": "2×2", "kernel": "2"},
    {"title": "3×3, stride 2, padding 1", "kernel": "3", "stride": "2", "padding": "1"},
)
_STOPS = 14  # of a slider, about; besides the numbers that one looks for
_USUAL = (0, 1, 2, 3)
_DIGITS = 5


def one_file() -> str:
    """The page with its style, its script and everything that it can show."""
    page, style, *scripts = (_text(name) for name in ("page.html", "page.css", *SCRIPTS))
    page = page.replace('<link rel="stylesheet" href="page.css">', f"<style>\n{style}</style>")
    data = base64.b64encode(gzip.compress(json.dumps(everything(), separators=(",", ":")).encode(), mtime=0)).decode()
    for name in SCRIPTS:
        page = page.replace(f'<script src="{name}" defer></script>\n', "")
    held = f'<script type="application/octet-stream" id="held">{data}</script>\n'
    held += "".join(f"<script>\n{script}</script>\n" for script in scripts)
    return page.replace("</body>", held + "</body>")


def _text(name: str) -> str:
    return (files("poolkit.explore") / name).read_text(encoding="utf-8")


def everything() -> dict[str, Any]:
    """All that a page without a server can show, as plain values."""
    names = [*poolkit.WINDOW_METHODS, *_alone()]
    found = [one for one in catalogue() if one["name"] in names]
    shown = [{**one, "parameters": _held(one)} for one in found]
    held = [one for one in pictures() if one["name"] in PICTURES]
    geometries, answers = {}, {}
    for picture in held:
        for number, where in enumerate(WINDOWS):
            geometries[f"{picture['name']}|{number}"] = _geometry(picture, where)
            for spelling in _spellings(shown):
                answers[f"{picture['name']}|{number}|{spelling}"] = _answer(picture, where, spelling)
    return {"methods": shown, "pictures": held, "windows": WINDOWS, "geometries": geometries, "answers": answers}


def _alone() -> list[str]:
    """The map methods that pool one map by a window, without weights: those that stand where a pool stood."""
    return [n for n, cls in poolkit.MAP_METHODS.items() if cls.takes_window == "needs" and cls.keeps_channels_apart]


def _held(one: dict[str, Any]) -> list[dict[str, Any]]:
    """A method's controls with the values at which they stop: those that the method takes by themselves."""
    cls, controls = poolkit.METHODS[one["name"]], [_stopping(each) for each in one["parameters"]]
    for each in controls:
        declared = cls.params()[each["name"]]
        each["stops"] = [stop for stop in each["stops"] if fits(cls, each["name"], declared.parse(stop))]
        if each["kind"] == "choice":
            each["choices"] = each["stops"]
    return controls


def _stopping(parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter's control with the values at which it stops."""
    if parameter["kind"] == "choice":
        return {**parameter, "stops": parameter["choices"]}
    if "slider" not in parameter or "stops" in parameter:
        return {"stops": [], **parameter}
    low, high, _ = parameter["slider"]
    if parameter["whole"]:
        return {**parameter, "stops": [str(n) for n in range(int(low), int(high) + 1)]}
    step = round_step((high - low) / _STOPS)
    even = [round(k * step, 9) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    kept = {spell(float(v)): float(v) for v in (low, *even, *(n for n in _USUAL if low <= n <= high), high)}
    kept[parameter["default"]] = float(parameter["default"].removeprefix("learn@"))
    texts = (text.removeprefix("learn@") for text in sorted(kept, key=lambda text: kept[text]))
    return {**parameter, "stops": list(dict.fromkeys(texts))}


def _spellings(shown: list[dict[str, Any]]) -> Iterator[str]:
    """Each method as it is, and with one parameter elsewhere."""
    for one in shown:
        found = [one["name"]]
        for each in one["parameters"]:
            found += [f"{one['name']}:{each['name']}={stop}" for stop in each["stops"]]
        yield from dict.fromkeys(found)


def _asked(picture: dict[str, Any], where: dict[str, str], spelling: str) -> Any:
    names = {"kernel": "kernel_size", "stride": "stride", "padding": "padding"}
    arguments = {name: int(where[key]) for key, name in names.items() if key in where}
    return read({"cells": picture["cells"], "method": spelling, **arguments})


def _geometry(picture: dict[str, Any], where: dict[str, str]) -> Any:
    from poolkit.explore.scene import geometry

    return geometry(_asked(picture, where, "max"))


def _answer(picture: dict[str, Any], where: dict[str, str], spelling: str) -> Any:
    from poolkit.explore.scene import answer

    return _rounded(answer(_asked(picture, where, spelling), poolkit.method(spelling)))


def _rounded(value: Any) -> Any:
    """Every number with the digits that a page shows."""
    if isinstance(value, float):
        short = float(f"{value:.{_DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e9 else short
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value
