"""A page for each method, made from its file, and the gallery of all of them."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from poolkit import METHODS, Method, WindowMethod, cards
from poolkit.lab.speed_words import markdown as speed_table
from poolkit.parameters import spell
from poolkit.torch import GlobalPool2d, Head, Pool2d
from poolkit.xp import OneWindow
from tools import figures
from tools.text import cell, markdown, table

SPEED = Path(__file__).parents[2] / "results" / "speed-cpu.json"
GRID = 4096  # numbers u at which a random method's draws are counted
INTRODUCTION = """\
# Methods

One page for each of the {count} methods, made from the method's own file when this site is built. Each picture shows
the output for the same feature map and, beside it, the weight of each cell: blue is below 0, white is 0, red is above.
`poolkit list` prints the same list, `poolkit show NAME` the same page, in a terminal.
"""


def pages() -> dict[str, str]:
    """Every generated page of the folder methods/: its path and its text."""
    return {"methods/index.md": gallery()} | {f"methods/{name}.md": page(cls) for name, cls in METHODS.items()}


def families() -> dict[str, list[type[Method]]]:
    """The methods by family, in the order of the list."""
    found: dict[str, list[type[Method]]] = {}
    for cls in METHODS.values():
        found.setdefault(cls.card.family, []).append(cls)
    return found


def gallery() -> str:
    """The index of all methods: by family, each with a picture and one line."""
    parts = [INTRODUCTION.format(count=len(METHODS))]
    for family, members in families().items():
        parts.append(f"## {family.capitalize()}\n\n::::{{grid}} 1 2 3 3\n:gutter: 2\n")
        parts += [_gallery_card(cls) for cls in members]
        parts.append("::::\n")
    hidden = "\n".join(["```{toctree}", ":hidden:", "", *METHODS, "```"])
    return "\n".join([*parts, hidden, ""])


def _gallery_card(cls: type[Method]) -> str:
    method = cls()
    picture = f"```{{raw}} html\n{figures.thumbnail(method)}\n```\n" if isinstance(method, WindowMethod) else ""
    first = cards.prose(cls)[0]
    return "\n".join(
        [
            f":::{{grid-item-card}} {cls.card.name}",
            f":link: {cls.card.name}\n:link-type: doc\n",
            picture,
            markdown(first),
            ":::\n",
        ]
    )


def page(cls: type[Method]) -> str:
    """The page of one method."""
    return "\n\n".join(part for part in _parts(cls) if part) + "\n"


def _parts(cls: type[Method]) -> Iterator[str]:
    card, method = cls.card, cls()
    yield f"# {markdown(card.title)}"
    yield _badges(cls)
    yield f'```{{raw}} html\n<p class="pk-equation">{figures.escape(card.equation)}</p>\n```'
    yield from map(markdown, cards.prose(cls))
    yield _use(cls)
    yield _parameters(cls)
    if isinstance(method, WindowMethod):
        yield from _pictures(cls, method)
        yield from _one_window(method)
    yield from _claims(cls)
    yield from _speed(card.name)
    if card.released:
        yield f"## Released code\n\n{markdown(card.released)}\n\nMore of this kind: {{doc}}`/released`."
    yield f"## Source\n\n{markdown(card.source)}."
    yield _reference(cls)


def _badges(cls: type[Method]) -> str:
    known = cards.entry(cls)
    badges = [f"{{bdg-secondary}}`{cls.card.family}`"]
    marks = (word for word in ("learnable", "random") if known[word] and word != cls.card.family)
    badges += [f"{{bdg-primary}}`{word}`" for word in marks]
    badges += ["{bdg-warning}`for cells ≥ 0`"] if cls.card.domain == "nonnegative" else []
    return f"`{cls.card.name}` " + " ".join(badges)


def _use(cls: type[Method]) -> str:
    """Lines that run: each layer is made here before it is printed."""
    name = cls.card.name
    if cls.kind == "head":
        Head(name, 512, (7, 7))  # it can be made as the line says
        code = f'from poolkit.torch import Head\n\nHead("{name}", 512, (7, 7))  # 512 maps of 7×7'
        return f"## Use\n\n```python\n{code}\n```\n\nOn the command line: `poolkit train --head {name}`."
    if cls.kind != "window":
        return f"## Use\n\nOn the command line: `poolkit show {name}`."
    calls: list[tuple[type, str, str]] = [(Pool2d, name, "")]
    learnable = [n for n, p in cls.params().items() if p.learnable and not p.table]
    if learnable:
        calls.append((Pool2d, f"{name}:{learnable[0]}=learn", "learned, one for the layer"))
        calls.append((Pool2d, f"{name}:{learnable[0]}=learnx64", "learned, one for each of 64 channels"))
    calls.append((GlobalPool2d, name, ""))
    made = []
    for layer, spelling, note in calls:
        windows = (2,) if layer is Pool2d else ()
        try:
            layer(spelling, *windows)
        except ValueError:  # a table of unknown size
            continue
        line = f'{layer.__name__}("{spelling}"{", 2" if windows else ""})'
        made.append(f"{line:44}# {note}" if note else line)
    code = "\n".join(["from poolkit.torch import GlobalPool2d, Pool2d", "", *made])
    play = f'{{raw}} html\n<p>Play with it: <a href="../explorer.html#method={name}&other=max">in the explorer</a>.</p>'
    typed = f"On the command line: `poolkit train --pool {name}`, `poolkit explore {name} max`."
    return f"## Use\n\n```python\n{code}\n```\n\n{typed}\n\n```{play}\n```"


def _parameters(cls: type[Method]) -> str:
    if not cls.params():
        return "## Parameters\n\nNone."
    rows = [
        (
            f"`{name}`",
            f"`{cards.default(declared)}`",
            cell(declared.range) + (", can be learned" if declared.learnable and not declared.table else ""),
            cell(declared.says),
        )
        for name, declared in cls.params().items()
    ]
    return "## Parameters\n\n" + table(("name", "default", "allowed", "meaning"), rows)


def _pictures(cls: type[Method], method: WindowMethod) -> Iterator[str]:
    caption = (
        "One map of a photograph's slanted edges under windows of 3×3: the output, the weight of each cell in it, and "
        "the gradient that reaches the input when large outputs are to shrink. Below each picture: what the ends of "
        "its colours stand for."
    )
    yield f"## On a feature map\n\n```{{raw}} html\n{figures.small_multiples(method)}\n```\n\n{caption}"
    variants = _variants(cls)
    when = " in evaluation" if method.draws else ""
    yield (
        f"## As one cell moves\n\n```{{raw}} html\n{figures.response(variants)}\n```\n\n"
        f"A window of four cells: one moves, the others are 0, 1 and 2, and the curve is the result{when}."
    )


def _variants(cls: type[Method]) -> list[tuple[str, WindowMethod]]:
    """The default and up to three values of the first parameter that shows: names for a chart, and methods."""
    default: Any = cls()
    for name, declared in cls.params().items():
        if declared.tries and not declared.table:
            label = f"{name}={cards.default(declared)}"
            others = [(f"{name}={spell(v)}", cls(**{name: v})) for v in declared.tries[:3]]
            return [(label, default), *others]  # type: ignore[list-item]
    return [(cls.card.name, default)]


def _one_window(method: WindowMethod) -> Iterator[str]:
    """The arithmetic of one window, then a small picture, then in training what a random method draws."""
    import torch

    cells = [v for row in cards.PICTURE[:2] for v in row[:2]]
    layer = Pool2d(method, 2).double().eval()
    layer.path = "reference"
    x = torch.tensor(cells, dtype=torch.float64).reshape(1, 1, 2, 2).requires_grad_()
    y = layer(x)
    weights = torch.autograd.grad(y.sum(), x)[0].flatten().tolist()
    rows = [
        ("cell", *(f"{v:g}" for v in cells)),
        ("weight ∂y/∂x", *(f"{w:.4g}".replace("-", "−") for w in weights)),
    ]
    start = "In evaluation, the" if method.draws else "The"
    result = f"{y.item():.5g}".replace("-", "−")
    yield (
        f"## In numbers\n\n{start} window 1, 3, 5, 6 gives **y = {result}**. How much each cell moves it:\n\n"
        + table(("", "1st", "2nd", "3rd", "4th"), rows)
    )
    yield f"Step by step{', in evaluation' if method.draws else ''}:\n\n```text\n{cards.stepped(method)}\n```"
    if method.draws:
        yield _draws(method, cells)
    yield f"A picture in windows of 2×2:\n\n```text\n{cards.drawing(method)}\n```"


def _draws(method: WindowMethod, cells: list[float]) -> str:
    values = method.values()
    found = Counter(round(method.oracle_sample(OneWindow.of(cells), values, (i + 0.5) / GRID), 6) for i in range(GRID))
    rows = [("probability", *(f"{found[v] / GRID:.3f}" for v in sorted(found)))]
    return "In training, drawn anew each time:\n\n" + table(("y", *(f"{v:g}" for v in sorted(found))), rows)


def _claims(cls: type[Method]) -> Iterator[str]:
    card, facts = cls.card, cls().facts
    if facts:
        domain = "" if card.domain == "any" else " for cells ≥ 0"
        lines = "\n".join(f"- {markdown(fact.sentence)}" for fact in facts)
        yield f"## Facts\n\nThe result{domain}\n\n{lines}\n\nEach is a test that `poolkit check {card.name}` runs."
    if pairs := cards.identities(card):
        lines = "\n".join(f"- `{one}` {words.format(other=f'`{other}`')}" for one, words, other in pairs)
        many = "\n\nn is the number of cells in the window." if any("{n}" in t for p in card.same for t in p) else ""
        yield f"## Identities\n\n{lines}{many}"


@lru_cache
def _measured() -> tuple[list[str], dict[str, str], str]:
    """The speed table of the stored result: its head, the line of each method, and how it was measured."""
    if not SPEED.exists():
        return [], {}, ""
    lines = speed_table(json.loads(SPEED.read_text(encoding="utf-8"))).splitlines()
    rows = {line.split("`")[1].partition(":")[0]: line for line in lines[2:] if line.startswith("| `")}
    return lines[:2], rows, lines[-1]


def _speed(name: str) -> Iterator[str]:
    head, rows, how = _measured()
    if name in rows:
        yield "## Speed\n\n" + "\n".join([*head, rows[name]]) + f"\n\n{how} More: {{doc}}`/speed`."


def _reference(cls: type[Method]) -> str:
    """The class for the index of names: its signature and parameters, whose meaning stands above."""
    signature = ", ".join(f"{n}={p.initial!r}" for n, p in cls.params().items())
    where = Path(inspect.getsourcefile(cls) or "").name
    text = cards.prose(cls)[0]
    return "\n".join(
        [
            "## Class",
            "",
            f"```{{py:class}} poolkit.{cls.__name__}({signature})",
            f":canonical: {cls.__module__}.{cls.__name__}",
            "",
            f"{markdown(text)} A frozen, comparable value; `str()` gives its spelling. Defined in `methods/{where}`.",
            "```",
        ]
    )
