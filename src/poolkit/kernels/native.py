"""Max, min and average pooling by torch's own kernels, where these compute the method's equation exactly."""

from __future__ import annotations

from typing import Any

from poolkit.method import WindowMethod
from poolkit.methods import Avg, Max, Min
from poolkit.window import Window

# torch sums an average window naively: its error grows with the number of cells, so larger windows take the formula.
LONGEST_SUM = 64


def refusal(method: WindowMethod, window: Window, x: Any) -> str | None:
    """Why torch's kernel cannot serve x, or None if it can."""
    if type(method) not in (Max, Min, Avg):  # a class derived from one of them has its own formula
        return f"torch has no kernel for {method.card.name}"
    if x.device.type not in ("cpu", "meta"):
        return f"torch's backward pass on {x.device.type} may add in another order each time"
    if window == Window.whole(x.shape[-window.dims :]):
        return "a global window is one reduction of the map"
    if isinstance(window.padding, str):
        return 'torch has no padding="same"'
    if any(2 * pad > size for pad, size in zip(window.padding, window.size, strict=True)):
        return "torch wants padding of at most half of the undilated window"
    if isinstance(method, Avg):
        if any(d > 1 for d in window.dilation):
            return "torch's average pooling has no dilation"
        if window.k > LONGEST_SUM:
            return f"torch sums windows of more than {LONGEST_SUM} cells inaccurately"
    return None


def run(method: WindowMethod, window: Window, x: Any) -> Any:
    """Call torch's kernel."""
    from torch.nn import functional as F

    geometry: dict[str, Any] = {
        "kernel_size": window.size,
        "stride": window.stride,
        "padding": window.padding,
        "ceil_mode": window.ceil_mode,
    }
    if isinstance(method, Avg):
        avg = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[window.dims - 1]
        return avg(x, count_include_pad=method.count_include_pad, **geometry)
    largest = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[window.dims - 1]
    if isinstance(method, Min):
        return -largest(-x, dilation=window.dilation, **geometry)
    return largest(x, dilation=window.dilation, **geometry)
