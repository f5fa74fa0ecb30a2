"""The explorer as one file that needs no server: what the page can ask is computed beforehand, by the same functions.

Such a page holds a few pictures and windows, and each method with the values at which its sliders stop, one parameter
away from its default at a time.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import poolkit
from poolkit.explore.asked import read
from poolkit.explore.pictures import pictures
from poolkit.explore.sliders import catalogue

PICTURES = ("numbers", "signs", "edge")
WINDOWS = (
    {"title": "2×2", "kernel": "2"},
    {"title": "3×3, stride 2, padding 1", "kernel": "3", "stride": "2", "padding": "1"},
)
_STOPS = 11
_DIGITS = 5


def one_file() -> str:
    """The page with its style, its script and everything that it can show."""
    parts = {
        name: (files("poolkit.explore") / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")
    }
    page = parts["html"].replace('<link rel="stylesheet" href="page.css">', f"<style>\n{parts['css']}</style>")
    data = base64.b64encode(gzip.compress(json.dumps(everything(), separators=(",", ":")).encode(), mtime=0)).decode()
    held = f'<script type="application/octet-stream" id="held">{data}</script>\n<script>\n{parts["js"]}</script>\n'
    page = page.replace('<script src="page.js" defer></script>\n', "")
    return page.replace("</body>", held + "</body>")


def everything() -> dict[str, Any]:
    """All that a page without a server can show, as plain values."""
    shown = [{**one, "parameters": [_stopping(each) for each in one["parameters"]]} for one in catalogue()]
    shown = [one for one in shown if one["kind"] == "window" or one["name"] in _alone()]
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


def _stopping(parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter's control with the values at which it stops."""
    if parameter["kind"] == "choice":
        return {**parameter, "stops": parameter["choices"]}
    if "slider" not in parameter:
        return {**parameter, "stops": []}
    low, high, step = parameter["slider"]
    if parameter["whole"]:
        return {**parameter, "stops": [str(n) for n in range(int(low), int(high) + 1)]}
    count = round((high - low) / step)
    places = sorted({round(k * count / (_STOPS - 1)) for k in range(_STOPS)})
    return {**parameter, "stops": [f"{round(low + k * step, 6):g}" for k in places]}


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

    try:
        found = poolkit.method(spelling)
    except ValueError as reason:  # of two parameters one may want the other
        return {"refused": str(reason)}
    return _rounded(answer(_asked(picture, where, spelling), found, every_cell=True))


def _rounded(value: Any) -> Any:
    """Every number with the digits that a page shows."""
    if isinstance(value, float):
        short = float(f"{value:.{_DIGITS}g}")
        return int(short) if short.is_integer() and abs(short) < 1e9 else short
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value
