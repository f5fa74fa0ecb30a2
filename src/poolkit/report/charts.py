"""Charts and pictures of the report as text inside the page: SVG for curves, data: URIs for pixels."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from poolkit.lab.pictures import to_png

ACTIVATION = "viridis"
DIFFERENCE = "RdBu_r"
MOST = 96  # pixels a side of a picture in the page: fifty large ones would make it too heavy to send

# matplotlib knows no CSS. Each colour below is drawn and then replaced by one that follows the page, light or
# dark.
_CSS = {
    "#010101": "currentColor",
    "#010102": "var(--line)",
    "#010103": "var(--blue)",
    "#010104": "var(--orange)",
    "#010105": "var(--green)",
    "#010106": "var(--purple)",
}
_INK, GRID, *SERIES = _CSS
WIDTH = 4.7  # inches: at the 72 points of SVG as wide as a phone's page, so that letters keep their size there
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "poolkit",
    "svg.fonttype": "none",
    "font.size": 11,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Line:
    """One curve: its name, one value for each epoch (None where not finite), and if it is drawn dashed."""

    name: str
    values: tuple[float | None, ...]
    dashed: bool = False


def curves(lines: Sequence[Line], what: str, alt: str, percents: bool = False) -> Markup:
    """Draw values against epochs as an SVG element; every line is labelled at its end.

    Arguments: `lines`, at least one, of equal length; `what`, the vertical axis in words; `alt`, the chart in
    words; `percents`, the values are shares and are shown as percentages.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.1))
        axes = figure.add_subplot()
        places: list[tuple[float, str, str]] = []
        for line, colour in zip(lines, SERIES * len(lines), strict=False):
            epochs = np.arange(1, len(line.values) + 1)
            values = np.array([math.nan if v is None else v for v in line.values], float)
            dashes = (0, (4, 2)) if line.dashed else "solid"
            marker = "o" if len(values) <= 20 else ""
            axes.plot(epochs, values, color=colour, lw=2, ls=dashes, marker=marker, ms=3.5, clip_on=False)
            finite = values[np.isfinite(values)]
            if len(finite):
                end = f"{100 * finite[-1]:.1f} %" if percents else f"{finite[-1]:.3g}"
                name = line.name if len(line.name) <= 20 else line.name[:19] + "…"
                places.append((float(finite[-1]), f"{name} {end}", colour))
        _dress(axes, what, percents)
        _label(axes, len(lines[0].values), places)
        letters = max((len(text) for _, text, _ in places), default=0)
        figure.subplots_adjust(left=0.11, right=0.97 - letters * 0.085 / WIDTH, bottom=0.16, top=0.9)
        return inline(figure, alt)


def _dress(axes: Axes, what: str, percents: bool) -> None:
    axes.set_title(what, loc="left", fontsize=11, parse_math=False)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if percents:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
    axes.grid(axis="y", color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.tick_params(axis="x", length=3)


def _label(axes: Axes, epochs: int, places: list[tuple[float, str, str]]) -> None:
    """Write each line's name beside its end, far enough from the next name to be read."""
    axes.set_xlim(0.8 if epochs > 1 else 0, max(epochs, 2))
    low, high = axes.get_ylim()
    gap = 0.085 * (high - low)
    at = -math.inf
    for value, text, colour in sorted(places):
        at = max(value, at + gap)
        axes.annotate(
            text, (epochs, at), xytext=(8, 0), textcoords="offset points", va="center", color=colour,
            annotation_clip=False, parse_math=False,
        )  # fmt: skip


def inline(figure: Figure, alt: str) -> Markup:
    """A figure drawn in `STYLE` as an SVG element whose colours follow the page; `alt` says it in words."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"])
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.S)
    box = re.search(r'viewBox="[-0-9. ]+"', text)
    assert box is not None  # noqa: S101 - matplotlib always writes one
    start = f'<svg {box[0]} role="img" aria-label="{escape(alt)}">'
    text = re.sub(r"^<svg[^>]*>", lambda _: start, text, flags=re.S)
    text = re.sub(r"font: (\S+) [^;\"]*", r"font-size: \1", text)
    for drawn, wanted in _CSS.items():
        text = text.replace(drawn, wanted)
    return Markup(text)  # noqa: S704 - matplotlib has escaped every name in it


def volumes(before: tuple[int, int, int], after: tuple[int, int, int], alt: str) -> Markup:
    """Draw two stacks of maps, (maps, rows, columns), to one scale with an arrow between as an SVG."""
    left, width = _stack(before, 8, 100)
    right, more = _stack(after, width + 100, 100)
    arrow = f'<path class="arrow" d="M{width + 24} 100h52m-9 -6l9 6l-9 6"/>'
    return Markup('<svg class="volumes" viewBox="0 14 {} 192" role="img" aria-label="{}">{}</svg>').format(
        more + 8,
        alt,
        Markup(left + arrow + right),  # noqa: S704 - made of numbers alone
    )


def _stack(shape: tuple[int, int, int], x: float, middle: float) -> tuple[str, float]:
    """The sheets of one stack, the rear one first, and where they end on the right."""
    maps, rows, columns = shape
    cell, shift = 7, 5
    width, height = columns * cell, rows * cell
    top = middle - (height - shift * (maps - 1)) / 2
    sheets = []
    for place in reversed(range(maps)):
        sheets.append(f'<rect x="{x + shift * place}" y="{top - shift * place}" width="{width}" height="{height}"/>')
    cuts = "".join(f"M{x + cell * i} {top}v{height}" for i in range(1, columns))
    cuts += "".join(f"M{x} {top + cell * i}h{width}" for i in range(1, rows))
    text = f'<text x="{x + width / 2}" y="{top + height + 20}">{columns} × {rows} × {maps}</text>'
    return f'<g>{"".join(sheets)}<path class="cuts" d="{cuts}"/>{text}</g>', x + width + shift * (maps - 1)


def uri(content: bytes, kind: str) -> str:
    """Bytes as a data: URI of the given media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture(pixels: np.ndarray) -> str:
    """A picture, uint8 (C, H, W), C 1 or 3, as a data: URI; one larger than `MOST` pixels a side is shrunk.

    Raises `ValueError` for another shape.
    """
    return uri(to_png(np.stack([_shrunk(channel) for channel in pixels]) if pixels.ndim == 3 else pixels), "image/png")


def _shrunk(values: np.ndarray) -> np.ndarray:
    """A channel or map (H, W) of at most `MOST` numbers a side; each is the mean of those it stands for."""
    height, width = values.shape
    if (largest := max(height, width)) <= MOST:
        return values
    size = (max(round(width * MOST / largest), 1), max(round(height * MOST / largest), 1))
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize(size, Image.Resampling.BOX))


def activation(values: np.ndarray, high: float) -> str:
    """A map (H, W) as a data: URI, coloured from 0 to `high`; what lies outside gets the end's colour."""
    return _coloured(values / high if high > 0 else values * 0, ACTIVATION)


def difference(values: np.ndarray, limit: float) -> str:
    """A difference (H, W) as a data: URI: blue below zero, white at it, red above; the ends are ±`limit`."""
    return _coloured(values / (2 * limit) + 0.5 if limit > 0 else values * 0 + 0.5, DIFFERENCE)


def ramp(name: str) -> str:
    """The colours of a scale from its low end to its high one, as a data: URI."""
    return _coloured(np.linspace(0, 1, 128)[None], name)


def _coloured(shares: np.ndarray, name: str) -> str:
    """Numbers from 0 to 1 as colours: PNG with a palette, a third of the bytes, where there are many."""
    colours = colormaps[name]
    if shares.size < 1000:
        return picture(np.ascontiguousarray(colours(shares, bytes=True)[..., :3].transpose(2, 0, 1)))
    small = np.nan_to_num(_shrunk(shares.astype(np.float32)), nan=0.0)
    image = Image.fromarray((small * colours.N).clip(0, colours.N - 1).astype(np.uint8))
    image.putpalette(colours(np.arange(colours.N), bytes=True)[:, :3].tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return uri(buffer.getvalue(), "image/png")
