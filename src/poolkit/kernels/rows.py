"""A method's parameter values as the rows of numbers that a kernel reads, and back.

First the single numbers in the order of the method's fields, then the tables, cell by cell (with rows: row by row).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Tables = dict[str, int | None]


def singles(values: dict[str, Any], tables: Tables) -> list[str]:
    """The parameters that are single numbers."""
    return [n for n, v in values.items() if not isinstance(v, (str, bool)) and n not in tables]


def to_rows(values: dict[str, Any], tables: Tables, cells: int, dtype: torch.dtype) -> Tensor:
    """The values as (Q, 1), or (Q, C) where one of them is a value for each channel.

    A table is (K,) or (rows, K), the same after (C, …), or the start of one, for K `cells`.
    """
    parts = [_single(values[n], dtype) for n in singles(values, tables)]
    parts += [_table(values[n], rows, cells).to(dtype) for n, rows in tables.items()]
    if not parts:
        return torch.empty(0, 1, dtype=dtype, device="cpu")
    wide = max(part.shape[1] for part in parts)
    return torch.cat([part.expand(-1, wide) for part in parts])


def _single(value: Any, dtype: torch.dtype) -> Tensor:
    one = value.to(dtype) if isinstance(value, Tensor) else torch.tensor(value, dtype=dtype, device="cpu")
    return one.reshape(1, -1)


def _table(numbers: Any, rows: int | None, cells: int) -> Tensor:
    if not isinstance(numbers, Tensor):
        starts = [numbers] if rows is None else [numbers[r] for r in range(rows)]
        flat = [float(start[j]) for start in starts for j in range(cells)]
        return torch.tensor(flat, dtype=torch.float64, device="cpu").reshape(-1, 1)
    own = 1 if rows is None else 2
    return numbers.flatten(1).T if numbers.dim() > own else numbers.reshape(-1, 1)


def from_rows(rows: Tensor, values: dict[str, Any], tables: Tables, cells: int, dims: int) -> dict[str, Tensor]:
    """The values again, as tensors: single numbers (1 or C, 1, …), tables (1 or C, K) or (1 or C, rows, K)."""
    names = singles(values, tables)
    found = {n: row.reshape(-1, *[1] * dims) for n, row in zip(names, rows, strict=False)}
    at = len(names)
    for name, count in tables.items():
        size = cells * (count or 1)
        table = rows[at : at + size].T
        found[name] = table if count is None else table.reshape(-1, count, cells)
        at += size
    return found
