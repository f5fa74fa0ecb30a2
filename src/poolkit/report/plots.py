"""Charts of a study as SVG that fits any width: places are percentages, letters and strokes keep their size.

A picture of fixed proportions, as matplotlib draws, is too small to read on a phone or too coarse on a wide screen.
Every chart takes `alt`, what it shows in words, and colours follow the page by the classes in study.css.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

# Where a name may stand beside its point: anchor, and pixels to the right and down.
_PLACES = (("start", 9, 4), ("end", -9, 4), ("middle", 0, -9), ("middle", 0, 18))
_WIDTHS, _HEIGHT, _LETTER = (700, 320), 384, 8  # pixels: scatter plots on a desk and a telephone, one letter of a name
_LANES = (32, 22, 42)  # heights in percent at which the dots of a strip lie, so that near ones do not hide each other


@dataclass(frozen=True)
class Scale:
    """A straight axis from `low` to `high`; `at` gives the place of a value in percent."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Iterable[float | None], margin: float = 0.04) -> Scale:
        """An axis that holds all finite values and a margin on both sides; 0 to 1 where there are none."""
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if not finite:
            return cls(0.0, 1.0)
        room = margin * (max(finite) - min(finite)) or abs(finite[0]) * margin or 1.0
        return cls(min(finite) - room, max(finite) + room)

    def at(self, value: float) -> float:
        """The place of a value, cut at the ends of the axis."""
        return min(max(100 * (value - self.low) / (self.high - self.low), 0.0), 100.0)

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """Round values on the axis: place in percent, text."""
        values = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
        inside = [float(value) for value in values if self.low <= value <= self.high]
        step = min((b - a for a, b in zip(inside, inside[1:], strict=False)), default=1.0)
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        digits += not math.isclose(step * 10**digits, round(step * 10**digits))
        return [(self.at(value), f"{value + 0.0:.{digits}f}".replace("-", "−")) for value in inside]


@dataclass(frozen=True)
class Dot:
    """A value with the text that appears when it is pointed at."""

    value: float
    text: str


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval."""

    middle: float
    low: float
    high: float


def strip(
    scale: Scale,
    dots: Sequence[Dot],
    interval: Interval | None,
    alt: str,
    lines: Sequence[float] = (),
    band: tuple[float, float] | None = None,
    outer: tuple[float, float] | None = None,
) -> Markup:
    """One row of a dot plot: the dots above, value and interval below them, or in the middle where there are no dots.

    Arguments: `interval`, None where there is none; `lines`, values marked by a dashed line through all rows; `band`, a
    shaded range; `outer`, a second, wider interval.
    """
    parts = []
    if band:
        start, end = (scale.at(value) for value in band)
        parts.append(f'<rect class="band" x="{start:.2f}%" width="{end - start:.2f}%" height="100%"/>')
    parts += [_line(scale.at(value), 0, scale.at(value), 100, "mark") for value in lines]
    ordered = sorted(dots, key=lambda dot: dot.value)
    for place, dot in enumerate(ordered):
        lane = _LANES[place % len(_LANES)] if len(ordered) > 1 else _LANES[0]
        parts.append(_dot(scale.at(dot.value), lane, 3, "seed", dot.text))
    y = 76 if dots else 50
    if outer:
        parts.append(_line(scale.at(outer[0]), y, scale.at(outer[1]), y, "outer"))
    if interval:
        parts.append(_line(scale.at(interval.low), y, scale.at(interval.high), y, "reach"))
        parts.append(_dot(scale.at(interval.middle), y, 4, "mean", ""))
    return _svg("strip", parts, alt)


@dataclass(frozen=True)
class Course:
    """A curve: one value for each epoch, None where it is not finite; `kind` is its class in the page's style."""

    values: Sequence[float | None]
    kind: str


def panel(scale: Scale, courses: Sequence[Course], alt: str) -> Markup:
    """Curves against epochs in a small frame, the first drawn first; of one epoch a dot each."""
    parts = []
    for place, text in scale.ticks(3):
        parts.append(_line(14, 100 - place, 100, 100 - place, "grid"))
        parts.append(f'<text x="11%" y="{100 - place:.2f}%" dy="3" text-anchor="end">{text}</text>')
    lines = [course for course in courses if len(course.values) > 1]
    alone = [(course.kind, value) for course in courses if course not in lines for value in course.values]
    parts += [_dot(57, 100 - scale.at(value), 3.5, kind, "") for kind, value in alone if value is not None]
    inner = "".join(_path(scale, course) for course in lines)
    parts.append(
        f'<svg x="14%" width="86%" height="100%" viewBox="0 0 100 100" preserveAspectRatio="none">{inner}</svg>'
    )
    return _svg("panel", parts, alt)


def _path(scale: Scale, course: Course) -> str:
    last, pieces, begun = max(len(course.values) - 1, 1), [], False
    for place, value in enumerate(course.values):
        if value is None or not math.isfinite(value):
            begun = False
            continue
        pieces.append(f"{'L' if begun else 'M'}{100 * place / last:.3g} {100 - scale.at(value):.4g}")
        begun = True
    return f'<path class="{course.kind}" d="{"".join(pieces)}"/>' if pieces else ""


@dataclass(frozen=True)
class Point:
    """A point of a scatter plot.

    `name` stands beside it where there is room, first of those whose `kind` is not "off"; `text` appears when it is
    pointed at.
    """

    x: float
    y: float
    text: str
    kind: str
    name: str


class _Box(NamedTuple):
    """Room that is taken in a scatter plot, in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of_dot(cls, x: float, y: float) -> _Box:
        return cls(x - 6, y - 6, x + 6, y + 6)

    @classmethod
    def of_name(cls, name: str, x: float, y: float, place: tuple[str, int, int]) -> _Box:
        anchor, right, down = place
        width, middle = _LETTER * len(name), y + down - 4
        left = x + right - {"start": 0.0, "end": width, "middle": width / 2}[anchor]
        return cls(left, middle - 7, left + width, middle + 7)

    def meets(self, other: _Box) -> bool:
        """Whether two boxes overlap."""
        apart = self.right < other.left or other.right < self.left
        return not (apart or self.bottom < other.top or other.bottom < self.top)


class _Room:
    """What is taken in a scatter plot that is `width` pixels wide, at first by its dots; places are in percent."""

    def __init__(self, width: float, dots: Iterable[tuple[float, float]]) -> None:
        self.width = width
        self.taken = [_Box.of_dot(*self._pixels(*dot)) for dot in dots]

    def _pixels(self, x: float, y: float) -> tuple[float, float]:
        return x / 100 * self.width, y / 100 * _HEIGHT

    def box(self, name: str, x: float, y: float, place: tuple[str, int, int]) -> _Box | None:
        """Where a name would stand; None where it would stick out or meet what is there."""
        box = _Box.of_name(name, *self._pixels(x, y), place)
        free = box.left >= 0 and box.right <= self.width and not any(map(box.meets, self.taken))
        return box if free else None


def _place(name: str, x: float, y: float, wide: _Room, narrow: _Room) -> tuple[str, int, int, str] | None:
    """Where a name stands beside its point, and its class where a telephone has no room; None if it fits nowhere."""
    boxes = [(place, wide.box(name, x, y, place), narrow.box(name, x, y, place)) for place in _PLACES]
    free = sorted((one for one in boxes if one[1]), key=lambda one: one[2] is None)
    if not free:
        return None
    place, *taken = free[0]
    for room, box in zip((wide, narrow), taken, strict=True):
        room.taken += [box] if box else []
    return (*place, "" if taken[1] else " roomy")


def scatter(
    across: Scale, up: Scale, points: Sequence[Point], steps: Sequence[tuple[float, float]], alt: str
) -> Markup:
    """Points on two axes; `steps`, corners (x, y) of a staircase from left to right."""
    parts = []
    for place, text in up.ticks(5):
        parts.append(_line(0, 100 - place, 100, 100 - place, "grid"))
        parts.append(f'<text class="tick" x="2" y="{100 - place:.2f}%" dy="-4">{text}</text>')
    for (x, y), (after, higher) in zip(steps, steps[1:], strict=False):
        flat, rise = 100 - up.at(y), 100 - up.at(higher)
        parts.append(_line(across.at(x), flat, across.at(after), flat, "front"))
        parts.append(_line(across.at(after), flat, across.at(after), rise, "front"))
    dots = [(across.at(point.x), 100 - up.at(point.y)) for point in points]
    wide, narrow = (_Room(width, dots) for width in _WIDTHS)
    for (x, y), point in sorted(zip(dots, points, strict=True), key=lambda pair: (pair[1].kind == "off", -pair[1].y)):
        parts.append(_dot(x, y, 5, point.kind, point.text))
        if found := _place(point.name, x, y, wide, narrow):
            anchor, right, down, roomy = found
            where = f'x="{x:.2f}%" y="{y:.2f}%" dx="{right}" dy="{down}" text-anchor="{anchor}"'
            parts.append(f'<text class="name {point.kind}{roomy}" {where}>{escape(point.name)}</text>')
    return _svg("scatter", parts, alt)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.2f}%" y1="{y1:.2f}%" x2="{x2:.2f}%" y2="{y2:.2f}%"/>'


def _dot(x: float, y: float, radius: float, kind: str, text: str) -> str:
    title = f"<title>{escape(text)}</title>" if text else ""
    return f'<circle class="{kind}" cx="{x:.2f}%" cy="{y:.2f}%" r="{radius:g}">{title}</circle>'


def _svg(kind: str, parts: Sequence[str], alt: str) -> Markup:
    return Markup('<svg class="{}" role="img" aria-label="{}">{}</svg>').format(
        kind,
        alt,
        Markup("".join(parts)),  # noqa: S704 - numbers, fixed words and escaped names
    )
