"""Strip pooling: rows and columns averaged whole, to gate each cell by its row and column."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

from poolkit.map_method import Answer, Map, MapMethod, MapShape, OneMap, Weight, convolution
from poolkit.method import Card, Values, param
from poolkit.plain import convolved, logistic, normalised


@dataclass(frozen=True)
class Strip(MapMethod):
    """Each cell times a gate that its whole row and its whole column open: the strip pooling module (SPM).

        y = x · σ(W · ReLU(h + v) + b),   h = norm(conv₃ₓ₁(mean over columns)),   v = norm(conv₁ₓ₃(mean over rows))

    h has one value a row, v one a column, each for every channel; they are added as an outer sum. Sizes and channels
    stay. `gate=false` gives the gate itself.

    The paper normalises h and v over the batch. Here each is normalised over its own channels and cells (a group
    normalisation with one group): the same in training and evaluation, for any batch. `norm="none"` adds the learned
    shift alone.

    Example:
        >>> sorted(Strip().weights(MapShape(8, 2)))[:3]
        ['columns', 'columns_scale', 'columns_shift']
    """

    gate: bool = param(True, says="whether the map is multiplied by the gate, or the gate given", tries=(False,))
    norm: str = param("group", choices=("group", "none"), says="whether strips are normalised", tries=("none",))

    takes_dims = (2,)
    keeps_channels_apart = False
    card: ClassVar[Card] = Card(
        name="strip",
        title="Strip pooling",
        equation="y = x · σ(W · ReLU(h + v) + b),  h = norm(conv(row means)),  v = norm(conv(column means))",
        source="Q. Hou, L. Zhang, M.-M. Cheng, J. Feng, Strip pooling: rethinking spatial pooling for scene parsing, "
        "CVPR 2020, arXiv:2003.13328",
        family="strip",
        released="The released block returns the gate and normalises over the batch.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *sizes)."""
        return (int(shape.channels or 0), *(shape.sizes or ()))

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """The convolutions along rows and columns, γ and β of their normalisations, and the mixing W and b."""
        if shape.channels is None:
            raise ValueError(f'{self.spelling} keeps weights for each channel\n  write MapPool2d("strip", channels=C)')
        c = shape.channels
        found = {"rows": convolution(c, c, 3, 1), "columns": convolution(c, c, 1, 3)}
        for name in ("rows", "columns"):
            found |= {f"{name}_scale": Weight((c,), scale=1.0)} if self.norm == "group" else {}
            found[f"{name}_shift"] = Weight((c,))
        return {**found, "mix": convolution(c, c, 1, 1), "mix_shift": Weight((c,))}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp = m.xp
        h = self._normed(m, p, "rows", xp.convolve(xp.mean(m.x, 3, True), p.rows))
        v = self._normed(m, p, "columns", xp.convolve(xp.mean(m.x, 2, True), p.columns))
        z = xp.convolve(xp.relu(h + v), p.mix) + xp.reshape(p.mix_shift, (1, -1, 1, 1))
        return m.x * xp.sigmoid(z) if p.gate else xp.sigmoid(z)

    def _normed(self, m: Map, p: Values, name: str, z: Any) -> Any:
        shift = getattr(p, f"{name}_shift")
        if self.norm == "none":
            return z + m.xp.reshape(shift, (1, -1, 1, 1))
        return m.normalised(z, 1, getattr(p, f"{name}_scale"), shift)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        (rows, columns), strips = m.sizes, {}
        for name, sizes in {"rows": (rows, 1), "columns": (1, columns)}.items():
            means: Answer = {}
            for c, i, j in product(range(m.channels), range(sizes[0]), range(sizes[1])):
                line = [m.x[c, i, k] for k in range(columns)] if name == "rows" else [m.x[c, k, j] for k in range(rows)]
                means[c, i, j] = math.fsum(line) / len(line)
            z, shift = convolved(means, getattr(p, name), sizes), getattr(p, f"{name}_shift")
            if p.norm == "group":
                z = normalised(z, 1, getattr(p, f"{name}_scale"), shift)
            else:
                z = {place: value + float(shift[place[0]]) for place, value in z.items()}
            strips[name] = z
        y: Answer = {}
        for c, i, j in product(range(m.channels), range(rows), range(columns)):
            open_ = [max(0.0, strips["rows"][k, i, 0] + strips["columns"][k, 0, j]) for k in range(m.channels)]
            total = math.fsum(float(p.mix[c, k, 0, 0]) * open_[k] for k in range(m.channels)) + float(p.mix_shift[c])
            y[c, i, j] = logistic(total) * (m.x[c, i, j] if p.gate else 1.0)
        return y
