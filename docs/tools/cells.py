"""Drawings of cells, words and curves as small SVG files that are legible on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

BLUE, ORANGE = "#3b7ddd", "#e0781e"
# A picture in an <img> cannot see the page's colours: it brings its own ground, and both follow the reader's setting.
_STYLE = """
.ground{fill:#ffffff}.ink{fill:#1b2330}.soft{fill:#566072}.rule{stroke:#c3c9d3}
@media(prefers-color-scheme:dark){.ground{fill:#16191f}.ink{fill:#eef1f5}.soft{fill:#a7b0bf}.rule{stroke:#4b5361}}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
""".strip()
_LINE = '<line class="rule" x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}"/>'


class Sheet:
    """A sheet to draw on; lengths are in pixels, from the upper left corner.

    Arguments: `width`, `height`; `alt`, what the picture shows, in words.
    """

    def __init__(self, width: int, height: int, alt: str) -> None:
        self.width, self.height, self.alt = width, height, alt
        self._parts: list[str] = []

    def text(
        self, x: float, y: float, words: str, *, size: float = 14, place: str = "middle", soft: bool = False
    ) -> None:
        """Write words with their base line at y; `place`: "start", "middle" or "end" of them lies at x."""
        kind = "soft" if soft else "ink"
        self._parts.append(
            f'<text class="{kind}" x="{x:g}" y="{y:g}" font-size="{size:g}" '
            f'text-anchor="{place}">{escape(words)}</text>'
        )

    def grid(self, x: float, y: float, values: np.ndarray, cell: float, *, end: float, numbers: bool = True) -> None:
        """Cells (H, W): blue from 0 to `end`, orange from 0 to −`end`; `numbers` are written into them."""
        rows, columns = values.shape
        for (row, column), value in np.ndenumerate(values):
            strength = round(0.75 * min(abs(value) / end, 1.0), 3)
            left, top = x + column * cell, y + row * cell
            if strength:
                colour = BLUE if value > 0 else ORANGE
                self._parts.append(
                    f'<rect x="{left:g}" y="{top:g}" width="{cell:g}" height="{cell:g}" fill="{colour}" '
                    f'fill-opacity="{strength:g}"/>'
                )
            if numbers:
                words = f"{value:.3g}".replace("-", "−")
                self.text(left + cell / 2, top + 0.64 * cell, words, size=cell * (0.42 if len(words) < 4 else 0.34))
        for row in range(rows + 1):
            self._parts.append(_LINE.format(x, y + row * cell, x + columns * cell, y + row * cell))
        for column in range(columns + 1):
            self._parts.append(_LINE.format(x + column * cell, y, x + column * cell, y + rows * cell))

    def frame(
        self, x: float, y: float, width: float, height: float, colour: str = ORANGE, *, dashed: bool = False
    ) -> None:
        """Outline a window."""
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self._parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2" fill="none" stroke="{colour}" '
            f'stroke-width="2.5"{dashes}/>'
        )

    def dot(self, x: float, y: float, colour: str = BLUE) -> None:
        """Mark a place."""
        self._parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="4.5" fill="{colour}"/>')

    def axes(self, x: float, y: float, width: float, height: float, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Rules at the heights `ys` and numbers at both axes, which begin at 0 and end with their last number."""
        for value in ys:
            at = y + height * (1 - value / ys[-1])
            self._parts.append(_LINE.format(x, at, x + width, at))
            self.text(x - 8, at + 4, f"{value:g}", size=12, place="end", soft=True)
        for value in xs:
            self.text(x + width * value / xs[-1], y + height + 18, f"{value:g}", size=12, soft=True)

    def curve(self, points: Sequence[tuple[float, float]], colour: str, dashes: str) -> None:
        """Draw a line through points."""
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}"/>'
        )
        for px, py in points:
            self._parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>')

    def svg(self) -> str:
        """The file's text."""
        size = f'viewBox="0 0 {self.width} {self.height}" width="{self.width}" height="{self.height}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(self.alt)}">'
        ground = f'<rect class="ground" width="{self.width}" height="{self.height}" rx="8"/>'
        return "\n".join([head, f"<style>{_STYLE}</style>", ground, *self._parts, "</svg>", ""])
