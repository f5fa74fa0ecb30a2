"""Mixed pooling module (MPM): averages of bins for what is near, of rows and columns for what is far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import Answer, Map, MapMethod, MapShape, OneMap, Weight, convolution
from poolkit.method import Card, Values, param
from poolkit.plain import binned, convolved, enlarged, normalised, rectified
from poolkit.pyramid import interpolation, means


@dataclass(frozen=True)
class MPM(MapMethod):
    """Pyramid and strip pooling side by side, as a residual: (N, C, H, W) to the same shape.

        y = ReLU(x + K·concat(near, far)),   K·z = norm(convolution of z)
        near = ReLU(K₃ₓ₃ ReLU(K₃ₓ₃ a + Σ up(K₃ₓ₃ mean_n(a)) over the bins n)),   a = ReLU(K₁ₓ₁ x)
        far = ReLU(K₃ₓ₃ ReLU(K₃ₓ₁(row means of b) + K₁ₓ₃(column means of b))),   b = ReLU(K₁ₓ₁ x)

    Each K has weights of its own; a, b, near and far have ⌊C/4⌋ channels. `mean_n` are the averages of n × n bins
    ⌊i·a/n⌋ … ⌈(i+1)·a/n⌉ − 1; `up` interpolates linearly, corner cells on the corners; row and column means are added
    as an outer sum.

    The paper normalises over the batch. Here every K normalises each example over its own channels and cells (a group
    normalisation with one group): the same in training and evaluation, for any batch. `norm="none"` adds the learned
    shift alone.

    Example:
        >>> MPM().weights(MapShape(64, 2))["join"].shape
        (64, 32, 1, 1)
    """

    bins: str = param("20-12", joined=True, low=1, high=256, says="bins along an axis, each level once", tries=("3-2",))
    norm: str = param("group", choices=("group", "none"), says="whether K normalises", tries=("none",))

    takes_dims = (2,)
    keeps_channels_apart = False
    try_channels = 8
    card: ClassVar[Card] = Card(
        name="mpm",
        title="Mixed pooling module (MPM)",
        equation="y = ReLU(x + K·concat(near, far)),  near from a + Σ up(K·mean_n(a)),  far from row and column means",
        source="Q. Hou, L. Zhang, M.-M. Cheng, J. Feng, Strip pooling: rethinking spatial pooling for scene parsing, "
        "CVPR 2020, arXiv:2003.13328",
        family="strip",
        released="The released block normalises over the batch.",
    )

    def __post_init__(self) -> None:
        """Refuse bins twice: each level has weights of its own, by its name."""
        super().__post_init__()
        if len(set(self.bins.split("-"))) < len(self.bins.split("-")):
            raise ValueError(f"MPM(bins={self.bins!r}) is not allowed: each level stands there once")

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *sizes)."""
        return (int(shape.channels or 0), *(shape.sizes or ()))

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """Each convolution, and γ and β of its normalisation."""
        if shape.channels is None or shape.channels < 4:
            raise ValueError(
                f'{self.spelling} keeps weights for at least 4 channels\n  write MapPool2d("mpm", channels=C)'
            )
        c, width = shape.channels, shape.channels // 4
        kernels = {"cell": (3, 3), **{f"bins{n}": (3, 3) for n in self.bins.split("-")}}
        kernels |= {"near": (3, 3), "rows": (3, 1), "columns": (1, 3), "far": (3, 3)}
        found = {name: convolution(width, c, 1, 1) for name in ("squeeze_near", "squeeze_far")}
        found |= {name: convolution(width, width, *kernel) for name, kernel in kernels.items()}
        found["join"] = convolution(c, 2 * width, 1, 1)
        for name, weight in list(found.items()):
            found |= {f"{name}_scale": Weight(weight.shape[:1], scale=1.0)} if self.norm == "group" else {}
            found[f"{name}_shift"] = Weight(weight.shape[:1])
        return found

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        xp = m.xp
        a, b = (xp.relu(self._k(m, p, name, m.x)) for name in ("squeeze_near", "squeeze_far"))
        near = self._k(m, p, "cell", a)
        for n in map(int, p.bins.split("-")):
            y = a
            for axis, length in enumerate(m.sizes):
                y = m.along(axis, means(length, n), y)
            y = self._k(m, p, f"bins{n}", y)
            for axis, length in enumerate(m.sizes):
                y = m.along(axis, interpolation(n, length), y)
            near = near + y
        far = self._k(m, p, "rows", xp.mean(b, 3, True)) + self._k(m, p, "columns", xp.mean(b, 2, True))
        both = [xp.relu(self._k(m, p, name, xp.relu(z))) for name, z in (("near", near), ("far", far))]
        return xp.relu(m.x + self._k(m, p, "join", xp.concat(both, 1)))

    def _k(self, m: Map, p: Values, name: str, z: Any) -> Any:
        z, shift = m.xp.convolve(z, getattr(p, name)), getattr(p, f"{name}_shift")
        if self.norm == "none":
            return z + m.xp.reshape(shift, (1, -1, 1, 1))
        return m.normalised(z, 1, getattr(p, f"{name}_scale"), shift)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        (h, w), width = m.sizes, m.channels // 4

        def k(name: str, z: Any, sizes: tuple[int, ...] = m.sizes) -> Answer:
            z, shift = convolved(z, getattr(p, name), sizes), getattr(p, f"{name}_shift")
            if p.norm == "none":
                return {place: v + float(shift[place[0]]) for place, v in z.items()}
            return normalised(z, 1, getattr(p, f"{name}_scale"), shift)

        a, b = (rectified(k(name, m.x)) for name in ("squeeze_near", "squeeze_far"))
        parts = [k("cell", a)]
        parts += [
            enlarged(k(f"bins{n}", binned(a, m.sizes, n), (n, n)), n, m.sizes) for n in map(int, p.bins.split("-"))
        ]
        near = {place: math.fsum(part[place] for part in parts) for place in a}
        rows: Answer = {(c, i, 0): math.fsum(b[c, i, j] for j in range(w)) / w for c in range(width) for i in range(h)}
        columns: Answer = {
            (c, 0, j): math.fsum(b[c, i, j] for i in range(h)) / h for c in range(width) for j in range(w)
        }
        rows, columns = k("rows", rows, (h, 1)), k("columns", columns, (1, w))
        far: Answer = {(c, i, j): rows[c, i, 0] + columns[c, 0, j] for c, i, j in a}
        both = rectified(k("near", rectified(near)))
        both |= {(width + c, i, j): v for (c, i, j), v in rectified(k("far", rectified(far))).items()}
        joined = k("join", both)
        return rectified({place: v + m.x[place] for place, v in joined.items()})
