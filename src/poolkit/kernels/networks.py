"""Sorting networks: comparisons of rows of numbers that take the same steps whatever the numbers are."""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
from numba import types

from poolkit.kernels.lanes import F32, LANES, Lanes, W, intrinsic

_I64 = ir.IntType(64)


def _network(kind: Lanes, pairs: list[tuple[int, int]], carries: bool) -> Any:
    """`exchange(first, second, step, shift)`: rows of Lanes in memory, compared in pairs, the larger number first.

    Half of the rows lie at `first`, `step` bytes from each other, the others at `second`. All stay in registers between
    the first pair and the last. Where it `carries`, the rows `shift` bytes on are whole numbers that go with these, and
    of equal numbers the one that carries less comes first.
    """
    plain, size = (ir.FloatType(), 4) if kind == F32 else (ir.DoubleType(), 8)
    vector, count = ir.VectorType(plain, W), 1 + max(j for _, j in pairs)
    half = (count + 1) // 2

    @intrinsic
    def exchange(typing: Any, first: Any, second: Any, step: Any, shift: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def place(r: int, shift: Any) -> Any:
                at = builder.mul(args[2], ir.Constant(_I64, r % half))
                return builder.inttoptr(builder.add(builder.add(args[r // half], at), shift), vector.as_pointer())

            shifts = [ir.Constant(_I64, 0), args[3]][: 1 + carries]
            at = [[place(r, shift) for r in range(count)] for shift in shifts]
            rows = [[builder.load(place, align=size) for place in places] for places in at]
            for i, j in pairs:
                a, b = rows[0][i], rows[0][j]
                swap = builder.fcmp_ordered(">", b, a)
                if carries:
                    less = builder.fcmp_ordered("<", rows[1][j], rows[1][i])
                    swap = builder.or_(swap, builder.and_(builder.fcmp_ordered("==", b, a), less))
                for row in rows:
                    row[i], row[j] = builder.select(swap, row[j], row[i]), builder.select(swap, row[i], row[j])
            for row, places in zip(rows, at, strict=True):
                for value, place in zip(row, places, strict=True):
                    builder.store(value, place, align=size)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp, types.intp), build

    return exchange


def _steps(*steps: str) -> list[tuple[int, int]]:
    """Pairs as written in tables of sorting networks: `03` compares the first and the fourth."""
    return [(int(pair[0]), int(pair[1])) for step in steps for pair in step.split()]


#: Networks of least size: two, four, … numbers in order; and steps of a bitonic merge: two of which the first turns the
#: second half around, any other two, and the last three.
NETWORKS = {
    "order2": _steps("01"),
    "order4": _steps("01 23", "02 13", "12"),
    "order6": _steps("05 13 24", "12 34", "03 25", "01 23 45", "12 34"),
    "order8": _steps("02 13 46 57", "04 15 26 37", "01 23 45 67", "24 35", "14 36", "12 34 56"),
    "order9": _steps("03 17 25 48", "07 24 38 56", "02 13 45 78", "14 36 57", "01 24 35 68", "23 45 67", "12 34 56"),
    "turn4": _steps("03 12", "01 23"),
    "merge4": _steps("02 13", "01 23"),
    "merge8": _steps("04 15 26 37", "02 13 46 57", "01 23 45 67"),
}
EXCHANGES = {
    name: {
        f"{word}{suffix}": _network(kind, pairs, bool(suffix))
        for word, pairs in NETWORKS.items()
        for suffix in ("", "_with")
    }
    for name, kind in LANES.items()
}
