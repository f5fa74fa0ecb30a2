"""Pyramid pooling module (PPM): averages of large bins, squeezed, and laid beside the map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import Answer, Map, MapMethod, MapShape, OneMap, Weight, convolution
from poolkit.method import Card, Values, param
from poolkit.plain import binned, convolved, enlarged, normalised, rectified
from poolkit.pyramid import interpolation, means


@dataclass(frozen=True)
class PPM(MapMethod):
    """For each level n: n × n averages, a convolution 1×1, normalisation, ReLU, and back to the map's size.

        y = concat(x, up(ReLU(norm(W_n · mean_n(x)))) for n = 1, 2, 3, 6)

    From C channels each level makes C / levels, so that the output has 2C. `mean_n` are the averages of bins
    ⌊i·a/n⌋ … ⌈(i+1)·a/n⌉ − 1; `up` interpolates linearly with the corner cells on the corners.

    The paper normalises over the batch, which fails for a bin 1 and a batch of one picture, and ties examples together.
    Here each level of an example is normalised over its own channels and bins (a group normalisation with one group):
    the same in training and evaluation, for any batch. `norm="none"` adds the learned shift alone.

    Example:
        >>> PPM().output_shape(MapShape(8, 2, (12, 12)))
        (16, 12, 12)
    """

    levels: str = param(
        "1-2-3-6", joined=True, low=1, high=256, says="bins along an axis, level by level", tries=("1-4",)
    )
    norm: str = param("group", choices=("group", "none"), says="whether each level is normalised", tries=("none",))

    takes_dims = (2,)
    keeps_channels_apart = False
    try_channels = 8
    card: ClassVar[Card] = Card(
        name="ppm",
        title="Pyramid pooling module (PPM)",
        equation="y = concat(x, up(ReLU(norm(W_n · mean_n(x)))) for n = 1, 2, 3, 6)",
        source="H. Zhao, J. Shi, X. Qi, X. Wang, J. Jia, Pyramid scene parsing network, CVPR 2017, arXiv:1612.01105",
        family="pyramid",
        released="The paper's code normalises over the batch and cannot train on a batch of one.",
    )

    def __post_init__(self) -> None:
        """Refuse a level twice: each has weights of its own, by its name."""
        super().__post_init__()
        if len(set(self.levels.split("-"))) < len(self.levels.split("-")):
            raise ValueError(f"PPM(levels={self.levels!r}) is not allowed: each level stands there once")

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C + levels · ⌊C / levels⌋, *sizes)."""
        channels, count = int(shape.channels or 0), len(self.levels.split("-"))
        return (channels + count * (channels // count), *(shape.sizes or ()))

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """The squeezing convolution of each level, γ and β."""
        levels, c = self.levels.split("-"), shape.channels
        if c is None or c < len(levels):
            raise ValueError(
                f"{self.spelling} keeps weights for at least {len(levels)} channels\n"
                '  write MapPool2d("ppm", channels=C)'
            )
        width, found = c // len(levels), {}
        for n in levels:
            found[f"squeeze{n}"] = convolution(width, c, 1, 1)
            found |= {f"scale{n}": Weight((width,), scale=1.0)} if self.norm == "group" else {}
            found[f"shift{n}"] = Weight((width,))
        return found

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        parts = [m.x]
        for n in map(int, p.levels.split("-")):
            y = m.x
            for axis, length in enumerate(m.sizes):
                y = m.along(axis, means(length, n), y)
            y = m.xp.convolve(y, getattr(p, f"squeeze{n}"))
            shift = getattr(p, f"shift{n}")
            if p.norm == "group":
                y = m.normalised(y, 1, getattr(p, f"scale{n}"), shift)
            else:
                y = y + m.xp.reshape(shift, (1, -1, 1, 1))
            y = m.xp.relu(y)
            for axis, length in enumerate(m.sizes):
                y = m.along(axis, interpolation(n, length), y)
            parts.append(y)
        return m.xp.concat(parts, 1)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        y: Answer = dict(m.x)
        first = m.channels
        for n in map(int, p.levels.split("-")):
            weight, shift = getattr(p, f"squeeze{n}"), getattr(p, f"shift{n}")
            small = convolved(binned(m.x, m.sizes, n), weight, (n, n))
            if p.norm == "group":
                small = normalised(small, 1, getattr(p, f"scale{n}"), shift)
            else:
                small = {place: v + float(shift[place[0]]) for place, v in small.items()}
            large = enlarged(rectified(small), n, m.sizes)
            y |= {(first + channel, i, j): v for (channel, i, j), v in large.items()}
            first += weight.shape[0]
        return y
