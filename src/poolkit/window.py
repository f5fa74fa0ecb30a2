"""Where windows lie. The only index arithmetic in the project."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from poolkit.xp import Cells

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """The windows along one axis of a given length.

    Attributes:
        length: cells of the picture along this axis.
        size, stride, dilation: of the window.
        before, after: padding, in cells.
        out: number of windows.
    """

    length: int
    size: int
    stride: int
    dilation: int
    before: int
    after: int
    out: int

    @property
    def overhang(self) -> int:
        """Cells beyond picture and padding which the last window reaches for (ceil mode)."""
        return max(0, (self.out - 1) * self.stride + self.extent - (self.length + self.before + self.after))

    @property
    def extent(self) -> int:
        """Cells from the first to the last one of a window."""
        return self.dilation * (self.size - 1) + 1

    @property
    def dropped(self) -> int:
        """Cells at the end that no window reaches."""
        return max(0, self.length + self.before - ((self.out - 1) * self.stride + self.extent))

    @property
    def reaches_out(self) -> bool:
        """Whether some window has cells outside the picture."""
        return bool(self.before or self.after or self.overhang)

    @property
    def complete(self) -> int:
        """Number of windows that lie wholly in the picture."""
        first = -(-self.before // self.stride)
        last = min(self.out - 1, (self.length + self.before - self.extent) // self.stride)
        return max(0, last - first + 1)

    def start(self, window: int) -> int:
        """Place in the picture of a window's first cell; < 0 in the padding."""
        return window * self.stride - self.before

    def inside(self, window: int) -> list[int]:
        """The cells of a window that lie in the picture, by their number in the window."""
        first = self.start(window)
        return [j for j in range(self.size) if 0 <= first + j * self.dilation < self.length]


@dataclass(frozen=True)
class Window:
    """Size, stride, padding, dilation and ceil mode of a pooling window. Make one with `window`.

    Output sizes are PyTorch's: ⌊(L + before + after − d(k−1) − 1)/s⌋ + 1, in ceil mode ⌈…⌉ and without a window that
    would start in the padding after the picture. `padding="same"` is TensorFlow's rule:
    ⌈L/s⌉ windows, an odd cell at the end.
    """

    size: Sizes
    stride: Sizes
    padding: Sizes | str
    dilation: Sizes
    ceil_mode: bool = False

    @property
    def dims(self) -> int:
        """Number of spatial axes."""
        return len(self.size)

    @property
    def k(self) -> int:
        """Number of cells K in a window."""
        return math.prod(self.size)

    @classmethod
    def whole(cls, sizes: Sequence[int]) -> Window:
        """The window as large as the picture: global pooling."""
        ones = (1,) * len(sizes)
        return cls(tuple(sizes), tuple(sizes), (0,) * len(sizes), ones)

    def axes(self, sizes: Sequence[int]) -> tuple[Axis, ...]:
        """The windows along each axis of a picture of these sizes.

        Raises:
            ValueError: a picture without cells, a window larger than the picture, or a window wholly in the padding.
        """
        if len(sizes) != self.dims:
            raise ValueError(f"a {self.dims}-d window cannot walk a picture of sizes {tuple(sizes)}")
        if min(sizes) < 1:
            raise ValueError(f"a picture of {_by(sizes)} has no cells to pool")
        axes = tuple(_axis(self, i, length) for i, length in enumerate(sizes))
        for axis in axes:
            # A gap longer than the picture is the only way for a window to jump over it.
            if axis.dilation > axis.length and not all(axis.inside(o) for o in range(axis.out)):
                raise ValueError(
                    f"a window of {_by(self.size)}, dilation {_by(self.dilation)}, padding {self.padding} lies wholly "
                    f"outside a picture of {_by(sizes)}: use less padding or dilation"
                )
        return axes

    def output_size(self, sizes: Sequence[int]) -> Sizes:
        """Number of windows along each axis."""
        return tuple(axis.out for axis in self.axes(sizes))

    def cells(self, x: Any, xp: Any, first: int = 2, axes: tuple[Axis, ...] | None = None) -> Cells:
        """The cells of all windows of x, stacked along a new axis 0.

        Args:
            x: (N, C, *sizes), or (N, *sizes, C) with first=1.
            xp: the array words.
            first: the axis of x at which the sizes begin.
            axes: of windows elsewhere than at these places.
        """
        # A trace of torch.jit gives sizes as tensors; they are numbers of the trace.
        sizes = tuple(
            n if isinstance(n, int) or not hasattr(n, "item") else int(n) for n in x.shape[first : first + self.dims]
        )
        behind = len(x.shape) - first - self.dims
        channel = 2 if first == 2 else len(x.shape)
        elsewhere, axes = axes is not None, axes or self.axes(sizes)
        if self == Window.whole(sizes) and not elsewhere:
            return Cells(xp.cells_first(x, self.dims, first), None, None, xp, channel)
        stacked = self._stack(x, axes, xp, first)
        if not any(axis.reaches_out for axis in axes):
            return Cells(stacked, None, None, xp, channel)
        before, after = (1,) * first, (1,) * behind
        one = xp.ones(x, (*before, *sizes, *after))
        inside = self._stack(one, axes, xp, first)
        framed = xp.ones(x, (*before, *(a.before + a.length + a.after for a in axes), *after))
        whole = [replace(a, before=0, length=a.before + a.length + a.after) for a in axes]
        return Cells(stacked, inside, self._stack(framed, whole, xp, first), xp, channel)

    def _stack(self, x: Any, axes: Sequence[Axis], xp: Any, first: int) -> Any:
        """(K, *x's axes with windows for sizes), row-major in the window; 0 outside x."""
        pads = [(a.before, max(0, a.start(a.out - 1) + a.extent - a.length)) for a in axes]
        x = xp.pad(x, pads + [(0, 0)] * (len(x.shape) - first - len(axes)))
        return xp.slices(x, [(slice(None),) * first + cut for cut in product(*(_cuts(a) for a in axes))])

    def walk(self, sizes: Sequence[int]) -> Iterator[tuple[Sizes, list[Sizes], list[int]]]:
        """Every window by plain counting: its place, its cells' places in the picture, their numbers in the window.

        For oracles: it shares nothing with `cells` but the number of windows and the padding before the picture.
        """
        axes = self.axes(sizes)
        for place in product(*(range(a.out) for a in axes)):
            yield place, *_counted(axes, place)

    def at(self, sizes: Sequence[int], place: Sizes) -> tuple[list[Sizes], list[int]]:
        """The window at one place of the output, as `walk` gives it: its cells' places, their numbers in the window.

        Raises:
            ValueError: there is no window at this place.
        """
        axes = self.axes(sizes)
        if len(place) != self.dims or not all(0 <= o < a.out for a, o in zip(axes, place, strict=True)):
            raise ValueError(f"no window at {tuple(place)}: there are {_by(a.out for a in axes)}, counted from 0")
        return _counted(axes, place)

    def padded(self, sizes: Sequence[int], place: Sizes) -> int:
        """Number of cells of one window that lie in the picture or its padding."""
        axes = self.axes(sizes)
        return math.prod(
            sum(-a.before <= a.start(o) + j * a.dilation < a.length + a.after for j in range(a.size))
            for a, o in zip(axes, place, strict=True)
        )

    def explain(self, sizes: Sequence[int]) -> str:
        """The geometry for a picture of these sizes, in words."""
        axes = self.axes(sizes)
        lines = [
            f"{_by(sizes)} cells → {_by(a.out for a in axes)} windows of {_by(self.size)}, stride {_by(self.stride)}"
        ]
        short = math.prod(a.out for a in axes) - math.prod(a.complete for a in axes)
        if short:
            lines.append(
                f"{short} of {math.prod(a.out for a in axes)} windows reach over the edge; cells outside never count"
            )
        for number, axis in enumerate(axes):
            if axis.dropped:
                hint = " (ceil_mode=True reads more)" if self._ceil_reads_more(number, axis) else ""
                lines.append(
                    f"axis {number}: the last {axis.dropped} of {axis.length} cells are read by no window{hint}"
                )
        return "\n".join(lines)

    def _ceil_reads_more(self, number: int, axis: Axis) -> bool:
        return _axis(replace(self, ceil_mode=True), number, axis.length).dropped < axis.dropped


def window(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, *, dims: int
) -> Window:
    """Build a `Window` from arguments as `torch.nn.MaxPool2d` takes them.

    Args:
        kernel_size: cells, an int or one for each axis.
        stride: cells from one window to the next; None: the kernel size.
        padding: cells on both sides, at most half of the (dilated) window; or `"same"`.
        dilation: cells from one cell of a window to the next.
        ceil_mode: also keep a last window that reaches over the end.
        dims: number of axes, 1, 2 or 3.

    Raises:
        ValueError: an argument of the wrong type, length or range; the message names it.
    """
    if not isinstance(ceil_mode, bool):
        raise ValueError(f"ceil_mode={ceil_mode!r}: must be True or False")
    size = _per_axis("kernel_size", kernel_size, dims, 1)
    steps = size if stride is None else _per_axis("stride", stride, dims, 1)
    gaps = _per_axis("dilation", dilation, dims, 1)
    if isinstance(padding, str):
        if padding != "same":
            raise ValueError(f'padding={padding!r}: must be cells (an int or {dims} ints) or "same"')
        return Window(size, steps, "same", gaps, ceil_mode)
    pads = _per_axis("padding", padding, dims, 0)
    for pad, k, d in zip(pads, size, gaps, strict=True):
        if pad > (d * (k - 1) + 1) // 2:
            raise ValueError(f"padding={padding!r}: at most half of the window, here {(d * (k - 1) + 1) // 2} cells")
    return Window(size, steps, pads, gaps, ceil_mode)


def _per_axis(name: str, value: Any, dims: int, least: int) -> Sizes:
    values = (value,) * dims if isinstance(value, numbers.Integral) else value  # NumPy's integers too
    if not isinstance(values, (tuple, list)) or len(values) not in (1, dims):
        raise ValueError(f"{name}={value!r}: must be an int or {dims} ints")
    values = tuple(values) * (dims // len(values))
    for v in values:
        if not isinstance(v, numbers.Integral) or isinstance(v, bool) or not least <= int(v) < 2**31:
            raise ValueError(f"{name}={value!r}: must be whole numbers from {least} to 2³¹−1")
    return tuple(int(v) for v in values)


def _axis(window: Window, i: int, length: int) -> Axis:
    k, s, d = window.size[i], window.stride[i], window.dilation[i]
    extent = d * (k - 1) + 1
    if window.padding == "same":
        out = -(-length // s)
        total = max((out - 1) * s + extent - length, 0)
        return Axis(length, k, s, d, total // 2, total - total // 2, out)
    pad = int(window.padding[i])
    free = length + 2 * pad - extent
    out = (-(-free // s) if window.ceil_mode else free // s) + 1
    if window.ceil_mode and (out - 1) * s >= length + pad:
        out -= 1
    if out < 1:
        raise ValueError(
            f"a window of {_by(window.size)} (dilation {_by(window.dilation)}) is larger than the picture: "
            f"axis {i} has {length} cells and {pad} of padding on each side"
        )
    return Axis(length, k, s, d, pad, pad, out)


def _counted(axes: Sequence[Axis], place: Sizes) -> tuple[list[Sizes], list[int]]:
    """The places of a window's cells in the picture and their numbers in the window, cell by cell."""
    cells, numbers = [], []
    for number, offsets in enumerate(product(*(range(a.size) for a in axes))):
        cell = tuple(a.start(o) + j * a.dilation for a, o, j in zip(axes, place, offsets, strict=True))
        if all(0 <= c < a.length for a, c in zip(axes, cell, strict=True)):
            cells.append(cell)
            numbers.append(number)
    return cells, numbers


def _cuts(axis: Axis) -> list[slice]:
    """One strided slice of the padded axis for each cell of a window."""
    last = (axis.out - 1) * axis.stride + 1
    return [slice(j * axis.dilation, j * axis.dilation + last, axis.stride) for j in range(axis.size)]


def _by(values: Any) -> str:
    return "×".join(str(v) for v in values)
