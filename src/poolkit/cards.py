"""A method's page in words and as plain values, with windows worked out; needs no array library."""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from poolkit.map_method import MapMethod, MapShape, OneMap
from poolkit.method import Card, Method, Param, WindowMethod
from poolkit.parameters import spell
from poolkit.steps import Step, steps
from poolkit.window import window
from poolkit.xp import OneWindow

Rows = tuple[tuple[float, ...], ...]

PICTURE: Rows = ((1, 3, 2, 4), (5, 6, 7, 8), (3, 2, 1, 0), (1, 2, 3, 4))
_WIDTH = 88


def year(cls: type[Method]) -> str:
    """The year of a method's source, or `""` where the card names none."""
    found = re.search(r"(?<![\d:.])(?:19|20)\d\d(?![\d.])", cls.card.source)
    return found.group() if found else ""


def defaults(cls: type[Method]) -> str:
    """A method's parameters with their defaults: `beta=1, grad=exact`."""
    return ", ".join(f"{name}={default(declared)}" for name, declared in cls.params().items())


_KINDS = {"window": "one window", "map": "the map", "head": "the vector"}


def markdown(methods: Iterable[type[Method]]) -> str:
    """The methods as tables in Markdown, one a kind: spelling, equation, parameters, random or learned, source."""
    tables: dict[str, list[str]] = {}
    for cls in methods:
        known = entry(cls)
        marks = [word for word in ("random", "learnable") if known[word]]
        cells = (f"`{known['name']}`", known["equation"], defaults(cls), ", ".join(marks), known["source"])
        lines = tables.setdefault(
            cls.kind, [f"| {cls.kind} method | {_KINDS[cls.kind]} | parameters | | source |", "|---|---|---|---|---|"]
        )
        lines.append("| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |")
    return "\n\n".join("\n".join(lines) for lines in tables.values())


def entry(cls: type[Method]) -> dict[str, Any]:
    """A method's class as plain values for a list: its card and what is known of its parameters."""
    parameters = [
        {
            "name": n,
            "default": p.default,
            "range": p.range,
            "learnable": p.learnable,
            "learned": p.by_default,
            "meaning": p.says,
        }
        for n, p in cls.params().items()
    ]
    return {
        "name": cls.card.name,
        "title": cls.card.title,
        "kind": cls.kind,
        "family": cls.card.family,
        "parameters": parameters,
        "random": is_random(cls()),
        "learnable": any(p["learnable"] for p in parameters) or _keeps_weights(cls()),
        "source": cls.card.source,
        "equation": cls.card.equation,
    }


def page_values(method: Method) -> dict[str, Any]:
    """The content of `page` as plain values."""
    card = method.card
    return {
        **entry(type(method)),
        "spelling": method.spelling,
        "about": _about(method),
        "facts": [fact.sentence for fact in method.facts],
        "same": card.same,
        "limits": card.limits,
        "domain": card.domain,
        "released": card.released,
        "example": {"input": PICTURE, "window": _example_window(method), "output": output}
        if (output := pooled(method))
        else None,
        "steps": [{"text": step.text, "numbers": _json(step.numbers)} for step in worked(method)],
    }


def page(method: Method) -> str:
    """Everything a method says about itself, for a terminal, and a picture that it has pooled."""
    card = method.card
    parts = [f"{card.title} · {method.spelling}", f"  {card.equation}", *_about(method)]
    if method.params():
        parts.append("parameters\n" + "\n".join(_parameter(method, name) for name in method.params()))
    if method.facts:
        claimed = "" if card.domain == "any" else " (claimed for cells x ≥ 0)"
        parts.append(f"facts{claimed}: the result\n" + "\n".join(f"  {fact.sentence}" for fact in method.facts))
    if pairs := identities(card):
        count = " (n: the number of cells)" if any("{n}" in text for pair in card.same for text in pair) else ""
        lines = [f"  {one} {words}".replace("{other}", other) for one, words, other in pairs]
        fresh = (
            " (what is learned by default at its start)" if any(p.by_default for p in method.params().values()) else ""
        )
        parts.append(f"identities{count}{fresh}\n" + "\n".join(lines))
    if card.released:
        parts.append("released code\n" + _indented(card.released))
    parts.append("source\n" + _indented(card.source))
    if pooled(method):
        when = "; in evaluation, without a draw" if is_random(method) else ""
        by = " by windows of 2×2" if _example_window(method) else ""
        parts.append(f"a picture pooled{by}{when}\n" + drawing(method))
    if isinstance(method, WindowMethod):
        parts.append("its first window, step by step\n" + textwrap.indent(stepped(method), "  "))
    return "\n\n".join(parts)


def identities(card: Card) -> list[tuple[str, str, str]]:
    """What a card says its method contains: a spelling, words with `{other}` in them, and the other's spelling."""
    same = [(one.replace("{n}", "n"), "is {other}", other.replace("{n}", "n")) for one, other in card.same]
    return same + [(a, "comes within 1 % of {other}, on well separated cells", b) for a, b in card.limits]


def prose(cls: type[Method]) -> list[str]:
    """The docstring's paragraphs in prose; its formula stands on the card, its example is code."""
    paragraphs = (inspect.getdoc(cls) or "").split("\n\n")
    return [" ".join(p.split()) for p in paragraphs if not p.startswith((" ", "Example:"))]


def pooled(method: Method, picture: Rows = PICTURE) -> Rows | None:
    """A picture, of an even number of rows and columns, pooled by the oracle: windows of 2×2, stride 2.

    Methods on whole maps that take no window pool it as it is; None where no picture comes out, or weights are wanted.
    """
    if not isinstance(method, WindowMethod):
        return _map_pooled(method, picture) if isinstance(method, MapMethod) else None
    values = method.values()
    return tuple(
        tuple(
            method.oracle(OneWindow.of([*top[column : column + 2], *low[column : column + 2]]), values)
            for column in range(0, len(top), 2)
        )
        for top, low in zip(picture[::2], picture[1::2], strict=True)
    )


def worked(method: Method) -> list[Step]:
    """The first window of 2×2 of the picture by the equation, its cells first; none where a method takes no window."""
    if not isinstance(method, WindowMethod):
        return []
    first = OneWindow.of([*PICTURE[0][:2], *PICTURE[1][:2]])
    return [Step("xᵢ", first.x), *steps(method, first, method.values())]


def stepped(method: WindowMethod) -> str:
    """The same as lines of text: what is computed, and a number for each cell or one for the window."""
    rows = [(step.text, step.numbers if isinstance(step.numbers, list) else [step.numbers]) for step in worked(method)]
    texts = [(text, [f"{v:.4g}" for v in numbers]) for text, numbers in rows]
    first = max(len(text) for text, _ in texts)
    width = max(len(number) for _, numbers in texts for number in numbers)
    return "\n".join("  ".join([text.ljust(first), *(v.rjust(width) for v in numbers)]) for text, numbers in texts)


def _json(numbers: list[float] | float) -> Any:
    """The numbers as JSON has them, which knows neither NaN nor infinity: those are null."""
    if isinstance(numbers, list):
        return [_json(v) for v in numbers]
    return numbers if math.isfinite(numbers) else None


def _example_window(method: Method) -> int | None:
    return None if isinstance(method, MapMethod) and method.takes_window != "needs" else 2


def _map_pooled(method: MapMethod, picture: Rows) -> Rows | None:
    where = window(2, dims=2) if _example_window(method) else None
    shape = MapShape(1, 2, (len(picture), len(picture[0])), where)
    try:
        out = method.output_shape(shape)
    except ValueError:  # one channel is too few, or two axes
        return None
    if len(out) != 3 or out[0] != 1 or method.weights(shape) or set(method.takes) - set(method.optional):
        return None
    answer = method.oracle(OneMap.of([list(row) for row in picture], window=where), method.values())
    return tuple(tuple(answer[0, row, column] for column in range(out[2])) for row in range(out[1]))


def drawing(*methods: Method, picture: Rows = PICTURE) -> str:
    """A picture and what methods make of it, side by side, as lines of text.

    Arguments: `methods`, one or more; `picture`, of an even number of rows and columns.
    """
    before = ["", *_grid(picture, 2)]
    blocks = []
    for method in methods:
        grid = _grid(pooled(method, picture) or (), 1)
        lines = [method.spelling.center(len(grid[0])), *grid]
        width = max(map(len, lines))
        blocks.append([line.ljust(width) for line in lines])
    height = len(before)
    arrow = ["→" if row == height // 2 else " " for row in range(height)]
    drawn = [[line.ljust(len(before[1])) for line in before], arrow]
    for block in blocks:
        above = (height - len(block)) // 2
        blank = " " * len(block[0])
        drawn.append([blank] * above + block + [blank] * (height - above - len(block)))
    lines = ["  " + "  ".join(parts).rstrip() for parts in zip(*drawn, strict=True)]
    return "\n".join(line for line in lines if line.strip())


def _grid(rows: Sequence[Sequence[float]], step: int) -> list[str]:
    """Numbers in boxes of `step` by `step`, each column as wide as its widest number."""
    texts = [[f"{v:.4g}" for v in row] for row in rows]
    width = max(len(text) for row in texts for text in row)
    count = len(rows[0]) // step
    rule = "─" * (step * (width + 1) + 1)
    lines = ["┌" + "┬".join([rule] * count) + "┐"]
    for number, row in enumerate(texts):
        if number and number % step == 0:
            lines.append("├" + "┼".join([rule] * count) + "┤")
        groups = [row[i : i + step] for i in range(0, len(row), step)]
        lines.append("│" + "│".join(" " + " ".join(t.rjust(width) for t in group) + " " for group in groups) + "│")
    return [*lines, "└" + "┴".join([rule] * count) + "┘"]


def _about(method: Method) -> list[str]:
    return [textwrap.fill(text, _WIDTH) for text in prose(type(method))]


def _parameter(method: Method, name: str) -> str:
    declared = method.params()[name]
    learns = ", can be learned" if declared.learnable else ""
    now = spell(getattr(method, name))
    return f"  {name}={now}  {declared.range}{learns}; default {default(declared)}\n      {declared.says}"


def default(declared: Param) -> str:
    """Where a parameter is, or where a table starts, if nothing is said of it."""
    return spell(declared.default if declared.table else declared.initial)


def _indented(text: str) -> str:
    return textwrap.fill(text, _WIDTH, initial_indent="  ", subsequent_indent="  ")


def is_random(method: Method) -> bool:
    """Whether a method draws in training."""
    return getattr(method, "random", False) or getattr(method, "draws", None) is not None


def _keeps_weights(method: Method) -> bool:
    """Whether a method on maps has weights that a network learns; asked of a map of a usual shape."""
    if not isinstance(method, MapMethod):
        return False
    dims = max(d for d in method.takes_dims if d <= 2)
    where = window(2, dims=dims) if method.takes_window == "needs" else None
    return any(weight.learned for weight in method.weights(MapShape(8, dims, (8,) * dims, where)).values())
