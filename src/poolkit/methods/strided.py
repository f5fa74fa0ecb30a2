"""Strided subsampling: one cell of the window, chosen by its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.method import BETWEEN, CONSTANT, MONOTONE, SCALES, SHIFTS, Card, Values, WindowMethod, param
from poolkit.steps import Step, mean
from poolkit.xp import Cells, OneWindow


@dataclass(frozen=True)
class Strided(WindowMethod):
    """The cell at a fixed place of the window, or at a random one in training.

        y = x_l,   l = 0 (first), ⌊n/2⌋ (center), n − 1 (last) or min(cell, n − 1) (cell) in row-major order

    What a convolution with a stride does after it has been computed everywhere: `at="cell", cell=3` of a 2×2 window is
    an offset by one row and one column. Places count the cells inside, so that a window at the border always has one;
    `center` is the middle cell of a window with odd sizes inside the picture.

    `at="random"` draws the place in training, all n with equal probability: `per="region"` for each window, `map` for
    each channel, `layer` for each example, which then keeps one phase of the grid. Evaluation is the expectation, the
    mean. The gradient goes to the chosen cell alone. A NaN in the window gives NaN, chosen or not, as in all methods.

    Example:
        >>> Strided(at="center").oracle(OneWindow.of([1, 4, 3]), Strided(at="center").values())
        4.0
    """

    at: str = param(
        "first",
        choices=("first", "center", "last", "cell", "random"),
        says="which cell is taken",
        tries=("center", "last", "random", "cell"),
    )
    cell: int = param(1, low=0, high=2**31 - 1, says="the number of the cell for at=cell, from 0")
    per: str = param("region", choices=("region", "map", "layer"), says="for what one random place is drawn")

    card: ClassVar[Card] = Card(
        name="strided",
        title="Strided subsampling",
        equation="y = x_l,  l a place in the window",
        source="J. T. Springenberg, A. Dosovitskiy, T. Brox, M. Riedmiller, Striving for simplicity: the all "
        "convolutional net, ICLR 2015 workshop, arXiv:1412.6806; random places: S. Zhai et al., S3Pool: pooling with "
        "stochastic spatial sampling, CVPR 2017, arXiv:1611.05138",
        family="selection",
        facts=(BETWEEN, SHIFTS, SCALES, CONSTANT, MONOTONE),
        same=(
            ("strided:at=random", "avg"),
            ("strided:at=cell,cell=0", "strided"),
            ("strided:at=cell,cell=99", "strided:at=last"),
        ),
        released="S3Pool draws whole rows and columns, after a maximum with stride 1; here each window, map or example "
        "has one place of its own.",
    )

    def __post_init__(self) -> None:
        """Refuse a cell that another place would leave out of account."""
        super().__post_init__()
        if self.at != "cell" and self.cell != self.params()["cell"].initial:
            raise ValueError(
                f"Strided(at={self.at!r}, cell={self.cell}) is not allowed: only at=cell looks at the cell\n"
                f"  write strided:at=cell,cell={self.cell}"
            )

    @property
    def draws(self) -> str | None:
        """One place for each region, map or layer, if it is drawn at all."""
        return self.per if self.at == "random" else None

    def reduce(self, w: Cells, p: Values) -> Any:
        """The array formula in evaluation."""
        if p.at == "random":
            return w.sum(w.x / w.n)
        if p.at == "cell":
            return self.sample(w, p, (w.at_most(p.cell + 1) - 0.5) / w.n)
        return self.sample(w, p, {"first": 0.0, "center": 0.5, "last": 1.0}[p.at])

    def oracle(self, w: OneWindow, p: Values) -> float:
        """The scalar form in evaluation."""
        if p.at == "random":
            return math.fsum(w.x) / w.n
        return w.x[{"first": 0, "center": w.n // 2, "last": w.n - 1, "cell": min(p.cell, w.n - 1)}[p.at]]

    def sample(self, w: Cells, p: Values, u: Any) -> Any:
        """The array formula in training."""
        xp = w.xp
        lost = w.sum(xp.where(w.x != w.x, 1.0, 0.0)) > 0
        chosen = w.draw(0.0 * w.rank + 1.0, u * xp.ones(w.x, tuple(w.x.shape[1:])))
        return xp.where(lost, math.nan, chosen)

    def oracle_sample(self, w: OneWindow, p: Values, u: float) -> float:
        """The scalar form in training."""
        return w.x[int(u * w.n)]

    def worked(self, w: OneWindow, p: Values) -> list[Step]:
        """One window step by step."""
        if p.at == "random":
            return [Step("Σ xᵢ", math.fsum(w.x)), Step("y = (1/n) Σ xᵢ, the expectation of x_l", mean(w.x))]
        place, name = {
            "first": (0, "l = 0"),
            "center": (w.n // 2, "l = ⌊n/2⌋"),
            "last": (w.n - 1, "l = n − 1"),
            "cell": (min(p.cell, w.n - 1), "l = min(cell, n − 1)"),
        }[p.at]
        return [Step("i", [*range(w.n)]), Step(name, place), Step("y = x_l", w.x[place])]

    def worked_sample(self, w: OneWindow, p: Values, u: float) -> list[Step]:
        """The same in training."""
        place = int(u * w.n)
        return [Step("i", [*range(w.n)]), Step("u", u), Step("l = ⌊u n⌋", place), Step("y = x_l", w.x[place])]

    def kernel(self, s: Any, p: Any) -> Any:
        """One window in evaluation for the CPU engine, and its gradient."""
        at = self.at
        if at == "random":
            return _mean(s)

        @s.inline
        def place(w: Any) -> Any:
            if at == "first":
                return 0
            if at == "cell":
                return min(p.cell(w), s.count(w) - 1)
            return s.count(w) - 1 if at == "last" else s.count(w) // 2

        def forward(w: Any) -> Any:
            lost = s.cell(w, 0) != s.cell(w, 0)
            for j in range(1, s.count(w)):
                lost = lost | (s.cell(w, j) != s.cell(w, j))
            return s.where(lost, math.nan, s.cell(w, place(w)))

        def gradient(w: Any, g: Any) -> None:
            chosen = place(w)
            for j in range(s.count(w)):
                s.give(w, j, g if j == chosen else s.real(0.0))

        return forward, gradient

    def sample_kernel(self, s: Any, p: Any) -> Any:
        """The same in training."""

        def forward(w: Any) -> Any:
            drawn, y = s.draw(w) * s.count(w), s.cell(w, 0)
            for j in range(1, s.count(w)):
                v = s.cell(w, j)
                y = s.where(((drawn >= j) & (y == y)) | (v != v), v, y)
            return y

        def gradient(w: Any, g: Any) -> None:
            drawn = s.draw(w) * s.count(w)
            for j in range(s.count(w)):
                s.give(w, j, s.where((drawn >= j) & (drawn < j + 1), g, 0.0))

        return forward, gradient


def _mean(s: Any) -> tuple[Any, Any]:
    """The mean; cells are divided before they are added, for the sum may lie beyond the largest number."""

    def forward(w: Any) -> Any:
        y = s.wide(0.0)
        for j in range(s.count(w)):
            y += s.wide(s.cell(w, j) / s.count(w))
        return y

    def gradient(w: Any, g: Any) -> None:
        for j in range(s.count(w)):
            s.give(w, j, g / s.count(w))

    return forward, gradient
