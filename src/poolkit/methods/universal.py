"""Universal pooling: a mean whose weights each channel computes from itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from poolkit.map_method import MAP_BETWEEN, MAP_CONSTANT, Answer, Map, MapMethod, MapShape, OneMap, Weight
from poolkit.method import Card, Values, param
from poolkit.plain import convolved


@dataclass(frozen=True)
class Universal(MapMethod):
    """The mean of the window's cells weighted by the softmax, within the window, of a convolution of their own channel.

        y = Σ πᵢ xᵢ,   π = softmax over the window of (w_c ∗ x_c)ᵢ

    One learned filter w_c for each channel, of `kernel` cells along each axis, with zeros around the map. It starts at
    zero, which is average pooling; a large multiple of the identity filter is max pooling. A filter of one cell is soft
    pooling with a learned β for each channel. The paper's block of channel-wise layers is here one such convolution.

    Example:
        >>> Universal().weights(MapShape(64, 2))["filter"].shape
        (64, 1, 3, 3)
    """

    kernel: int = param(3, low=1, high=31, says="cells of the filter along each axis; odd", tries=(1,))

    takes_window = "needs"
    card: ClassVar[Card] = Card(
        name="universal",
        title="Universal pooling",
        equation="y = Σ πᵢ xᵢ,  π = softmax over the window of (w_c ∗ x_c)ᵢ,  w_c learned for each channel",
        source="J. Hyun, H. Seong, E. Kim, Universal pooling: a new pooling method for convolutional neural networks, "
        "2019, arXiv:1907.11440",
        family="learned weights",
        facts=(MAP_BETWEEN, MAP_CONSTANT),
    )

    def __post_init__(self) -> None:
        """Refuse an even filter, which has no middle."""
        super().__post_init__()
        if self.kernel % 2 == 0:
            raise ValueError(f"Universal(kernel={self.kernel}) is not allowed: filters with a middle are odd")

    def output_shape(self, shape: MapShape) -> tuple[int, ...]:
        """(C, *windows)."""
        return (int(shape.channels or 0), *(axis.out for axis in shape.axes))

    def weights(self, shape: MapShape) -> dict[str, Weight]:
        """One filter for each channel."""
        if shape.channels is None:
            raise ValueError(
                f'{self.spelling} keeps weights for each channel\n  write Pool{shape.dims}d("universal", 2, channels=C)'
            )
        return {"filter": Weight((shape.channels, 1, *[self.kernel] * shape.dims))}

    def pool(self, m: Map, p: Values) -> Any:
        """The array formula."""
        w = m.cells()
        return w.sum(w.softmax(m.cells(m.xp.convolve(m.x, p.filter)).x) * w.x)

    def oracle(self, m: OneMap, p: Values) -> Answer:
        """The scalar form."""
        z, y = convolved(m.x, p.filter, m.sizes), {}
        for channel in range(m.channels):
            for place, cells, values in m.windows(channel):
                logits = [z[(channel,) + cell] for cell in cells]
                weights = [math.exp(v - max(logits)) for v in logits]
                top = math.fsum(a * v for a, v in zip(weights, values, strict=True))
                y[(channel,) + place] = top / math.fsum(weights)
        return y
