"""Local importance-based pooling (LIP): a mean weighted by what a small network says of each cell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import (
    MAP_BETWEEN,
    MAP_CONSTANT,
    Answer,
    Map,
    MapMethod,
    MapShape,
    OneMap,
    Weight,
    convolution,
)
from poolkit.method import Card, Values, param
from poolkit.plain import convolved, logistic, normalised, rectified


@dataclass(frozen=True)
class LIP(MapMethod):
    """The mean of the window's cells weighted by exp(G(x)), G a network of a few convolutions.

        y = Σ exp(G(x)ᵢ) xᵢ / Σ exp(G(x)ⱼ)

    `logit="projection"`: G is a convolution 1×1. `simplified`: a convolution 3×3, instance normalisation, and the gate
    12 σ(z). `bottleneck`: convolutions 1×1 to `width` channels, 3×3, 1×1, each with instance normalisation, with ReLU
    between them and the gate at the end; the paper's network for ImageNet. The last convolution starts at zero, so that
    training starts from average pooling. Convolutions have zeros around the map; cells outside have no weight.

    The normalisation couples the output to the whole map; the variance of a map of one cell is 0, which gives 0.

    Example:
        >>> LIP().weights(MapShape(64, 2))["last"].shape
        (64, 64, 1, 1)
    """

    logit: str = param(
        "projection", choices=("projection", "simplified", "bottleneck"), says="the network G", tries=("simplified",)
    )
    width: int = param(128, low=1, high=65536, says="channels inside the bottleneck")

    takes_window = "needs"
    keeps_channels_apart = False
    tries = ({"logit": "bottleneck", "width": 3},)
    card: ClassVar[Card] = Card(
        name="lip",
        title="Local importance-based pooling (LIP)",
        equation="y = Σ exp(G(x)ᵢ) xᵢ / Σ exp(G(x)ⱼ),  G a small network with learned weights",
        source="Z. Gao, L. Wang, G. Wu, LIP: local importance-based pooling, ICCV 2019, arXiv:1908.04156",
        family="learned weights",
        facts=(MAP_BETWEEN, MAP_CONSTANT),
        released="One public re-implementation builds the network anew at each call, with random weights.",
    )

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *windows)."""
        return (int(shape.channels or 0), *(axis.out for axis in shape.axes))

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """The convolutions of G, and γ and β of each normalisation."""
        if shape.channels is None:
            raise ValueError(
                f'{self.spelling} keeps weights for each channel\n  write Pool{shape.dims}d("lip", 2, channels=C)'
            )
        c, one, three = shape.channels, (1,) * shape.dims, (3,) * shape.dims
        found: dict[str, Weight] = {}
        if self.logit == "bottleneck":
            found["first"] = convolution(self.width, c, *one)
            found["middle"] = convolution(self.width, self.width, *three)
            for name in ("first", "middle"):
                found |= {f"{name}_scale": Weight((self.width,), scale=1.0), f"{name}_shift": Weight((self.width,))}
        kernel = three if self.logit == "simplified" else one
        found["last"] = Weight((c, self.width if self.logit == "bottleneck" else c, *kernel))
        if self.logit != "projection":
            found |= {"last_scale": Weight((c,), scale=1.0), "last_shift": Weight((c,))}
        return found

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        w = m.cells()
        weights = w.softmax(m.cells(self._logits(m, p)).x)
        return w.sum(weights * w.x)

    def _logits(self, m: Map, p: Values) -> Any:
        z, xp = m.x, m.xp
        if self.logit == "bottleneck":
            z = xp.relu(m.normalised(xp.convolve(z, p.first), self.width, p.first_scale, p.first_shift))
            z = xp.relu(m.normalised(xp.convolve(z, p.middle), self.width, p.middle_scale, p.middle_shift))
        z = xp.convolve(z, p.last)
        if self.logit == "projection":
            return z
        return 12.0 * xp.sigmoid(m.normalised(z, m.channels, p.last_scale, p.last_shift))

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        z = dict(m.x)
        if self.logit == "bottleneck":
            z = rectified(normalised(convolved(z, p.first, m.sizes), self.width, p.first_scale, p.first_shift))
            z = rectified(normalised(convolved(z, p.middle, m.sizes), self.width, p.middle_scale, p.middle_shift))
        z = convolved(z, p.last, m.sizes)
        if self.logit != "projection":
            z = normalised(z, m.channels, p.last_scale, p.last_shift)
            z = {place: 12 * logistic(v) for place, v in z.items()}
        y: Answer = {}
        for channel in range(m.channels):
            for place, cells, values in m.windows(channel):
                logits = [z[(channel,) + cell] for cell in cells]
                weights = [math.exp(v - max(logits)) for v in logits]
                top = math.fsum(a * v for a, v in zip(weights, values, strict=True))
                y[(channel,) + place] = top / math.fsum(weights)
        return y
