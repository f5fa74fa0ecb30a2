"""The two paths of a call in PyTorch: a window method on a tensor by the CPU engine, or by its array formula."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from poolkit import kernels
from poolkit.draws import draw_shape, uniform
from poolkit.layer import HALF, Draws, in_format_of, widened, without_autocast
from poolkit.method import Values, WindowMethod
from poolkit.window import Window
from poolkit.xp import torch_words

_WORDS = torch_words()


def by_engine(
    x: Tensor, method: WindowMethod, where: Window, values: dict[str, Any], draws: Draws, relu: bool = False
) -> Tensor:
    """The CPU engine on x (N, C, *sizes), or with `relu` on max(x, 0)."""
    from poolkit.kernels import op
    from poolkit.kernels.rows import from_rows, to_rows

    learned = {n: fitting(method, n, v, x.shape[1], where) for n, v in values.items() if isinstance(v, Tensor)}
    dtype, tables = torch.float32 if x.dtype in HALF else x.dtype, method.per_cell
    eager = not torch.compiler.is_compiling()
    if any(v.device != x.device or (eager and not kernels.plain(v)) for v in learned.values()):
        return by_formula(x.relu() if relu else x, method, where, {**values, **learned}, draws)
    if learned or not eager:
        rows = to_rows({**values, **learned}, tables, where.k, dtype)
    else:
        rows = _fixed_rows(tuple(values.items()), tuple(tables.items()), where.k if tables else 1, dtype)
    if not eager:
        key, first = draws or (None, None)
        first = torch.full_like(key, first) if isinstance(first, int) else first  # type: ignore[arg-type]
        return op.compiled(x.relu() if relu else x, rows, op.Call(method, where), key, first)

    def formula(x: Tensor, rows: Tensor) -> Tensor:
        again = from_rows(rows, values, tables, where.k, where.dims)
        all_values = {**values, **{n: v for n, v in again.items() if n in learned}}
        return by_formula(x.relu() if relu else x, method, where, all_values, draws)

    call = op.Call(method, where, None if draws is None else (int(draws[0]), int(draws[1])), relu)
    return op.pool(x, rows, call, formula)


@lru_cache(maxsize=64)  # a table may be as large as a map
def _fixed_rows(
    values: tuple[tuple[str, Any], ...], tables: tuple[tuple[str, int | None], ...], cells: int, dtype: torch.dtype
) -> Tensor:
    from poolkit.kernels.rows import to_rows

    with torch.inference_mode(False):  # these are kept for calls outside it too
        return to_rows(dict(values), dict(tables), cells, dtype)


def fitting(method: WindowMethod, name: str, value: Any, channels: int, where: Window) -> Any:
    """A tensor of one number a channel, in any shape, as (channels, 1, …); a table if it fits; else the value."""
    if not isinstance(value, Tensor):
        return value
    if name in method.tables:
        return _fitting_table(name, method.tables[name], value, channels, where.k)
    if value.numel() == 1:
        return value
    if value.numel() != channels:
        raise ValueError(f"{name} is learned for {value.numel()} channels, the input has {channels}")
    return value.reshape(channels, *[1] * where.dims)


def _fitting_table(name: str, rows: int | None, table: Tensor, channels: int, cells: int) -> Tensor:
    """A table as it is, if its shape is right."""
    one = (cells,) if rows is None else (rows, cells)
    before, own = tuple(table.shape[: -len(one)]), tuple(table.shape[-len(one) :])
    if own != one or len(before) > 1:
        raise ValueError(
            f"{name} has the shape {tuple(table.shape)}; for a window of {cells} cells it must be "
            + table_shapes(rows, cells)
        )
    if before not in ((), (channels,)):
        raise ValueError(f"{name} is learned for {before[0]} channels, the input has {channels}")
    return table


def table_shapes(rows: int | None, cells: int | str = "K") -> str:
    """The shapes that a table may have, in words."""
    one = f"{cells}" if rows is None else f"{rows}, {cells}"
    return f"({one}{',' if rows is None else ''}) or (C, {one})"


def by_formula(x: Tensor, method: WindowMethod, where: Window, values: dict[str, Any], draws: Draws) -> Tensor:
    """The reference path. Half precision is computed in float32 and rounded once, at the end."""
    wide = widened(x)
    with without_autocast(x):
        cells = where.cells(wide, _WORDS)
        p = Values(**{name: v.to(wide.dtype) if isinstance(v, Tensor) else v for name, v in values.items()})
        if draws is None:
            y = method.reduce(cells, p)
        else:
            u = uniform(*draws, draw_shape(method.draws, tuple(cells.x.shape[1:])))
            y = method.sample(cells, p, u.to(wide.dtype))
    y = y.expand(cells.x.shape[1:]).to(x.dtype)
    return in_format_of(x, y)
