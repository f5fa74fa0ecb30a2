"""Numbers side by side: the arithmetic in which the CPU kernels are written.

A value of type `Lanes` holds W numbers of W windows and maps to vector registers. The usual operators work on it, a
plain number counts for every lane, and `where(condition, a, b)` takes the place of a branch. The vectors are explicit,
so nothing depends on what an optimiser can prove about a loop, a window may have any number of cells, and a kernel
compiles in a second or two.

Memory is reached by address: `load` and `store` move W neighbouring numbers, with no bounds checked here. The walkers
(`walk.py`) see to it that every address lies in a tensor or in scratch memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any

import llvmlite.binding as llvm
import llvmlite.ir as ir
import numpy as np
from numba import extending, njit, types
from numba.core import cgutils
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, lower_cast, models, register_model

#: Windows side by side: two registers of float32, which keep both of a core's vector units busy. LLVM takes registers
#: of sixteen on AMD's Zen 5, and of eight on other processors, also on Intel's that have larger ones.
W = 32 if llvm.get_host_cpu_name() == "znver5" else 16

intrinsic: Any = extending.intrinsic  # its declared types do not know that the first argument is Numba's own

# `numpy` divides without a test for zero, which would be a branch; a helper that is not inlined would pass its vectors
# through memory.
# Nobody calls a piece from Python: without its wrappers it compiles in half the time.
INLINE: dict[str, Any] = {
    "error_model": "numpy",
    "forceinline": True,
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}

_ELEMENTS = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.boolean: ir.IntType(1),
}
_I32, _I64 = ir.IntType(32), ir.IntType(64)


class Lanes(types.Type):
    """W numbers of one kind."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(name=f"Lanes({element})")

    def can_convert_from(self, typingctx: Any, other: Any) -> Any:
        """A plain number counts for every lane."""
        return Conversion.safe if isinstance(other, types.Number) else None


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, _vector(kind))


def _vector(kind: Lanes) -> Any:
    return ir.VectorType(_ELEMENTS[kind.element], W)


F32, F64, MASK = (Lanes(element) for element in _ELEMENTS)
LANES = {"float32": F32, "float64": F64}


def _splat(builder: Any, value: Any) -> Any:
    vector = ir.VectorType(value.type, W)
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(ir.VectorType(_I32, W), [0] * W))


@lower_cast(types.Number, Lanes)
def _number(context: Any, builder: Any, source: Any, target: Any, value: Any) -> Any:
    return _splat(builder, context.cast(builder, value, source, target.element))


def _binary(symbol: Any, build: Callable[..., Any], result: Lanes | None = None) -> None:
    """An operator for two Lanes of one kind, or one and a plain number."""

    class Operator(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            kinds = {a for a in args if isinstance(a, Lanes)}
            known = all(isinstance(a, (Lanes, types.Number)) for a in args)
            if len(args) != 2 or len(kinds) != 1 or not known:
                return None
            kind = kinds.pop()
            return signature(result or kind, kind, kind)

    infer_global(symbol)(Operator)

    @lower_builtin(symbol, Lanes, Lanes)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return build(builder, *args)


for _name, _symbols in {
    "fadd": (operator.add, operator.iadd),
    "fsub": (operator.sub, operator.isub),
    "fmul": (operator.mul, operator.imul),
    "fdiv": (operator.truediv, operator.itruediv),
}.items():
    for _symbol in _symbols:
        _binary(_symbol, lambda b, x, y, name=_name: getattr(b, name)(x, y))
for _symbol, _word in {
    operator.gt: ">",
    operator.lt: "<",
    operator.ge: ">=",
    operator.le: "<=",
    operator.eq: "==",
}.items():
    _binary(_symbol, lambda b, x, y, word=_word: b.fcmp_ordered(word, x, y), MASK)
_binary(operator.ne, lambda b, x, y: b.fcmp_unordered("!=", x, y), MASK)
_binary(operator.and_, lambda b, x, y: b.and_(x, y))
_binary(operator.or_, lambda b, x, y: b.or_(x, y))


@intrinsic
def where(typing: Any, condition: Any, a: Any, b: Any) -> Any:
    """Lane by lane a where the condition holds, else b; either may be a plain number."""
    kind = a if isinstance(a, Lanes) else b
    return kind(condition, kind, kind), lambda context, builder, sig, args: builder.select(*args)


def _math(name: str) -> Any:
    """One of LLVM's own functions of one number, lane by lane."""

    @intrinsic
    def call(typing: Any, v: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = args[0].type
            kind = f"llvm.{name}.v{W}f{32 if v == F32 else 64}"
            return builder.call(
                cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), kind), args
            )

        return v(v), build

    return call


absolute, root = _math("fabs"), _math("sqrt")


#: Bytes of a row of the squares that are transposed: one register.
TILE = 64 if W == 32 else 32


def _transposition(plain: Any, size: int) -> Any:
    """`transpose(source, step, to, to_step)`: a square of TILE bytes by as many rows, each `step` after the one before.

    Pairs of rows are interleaved, first in halves of a row, so that no step but the last crosses a register's halves.
    """
    n = TILE // size
    vector, half = ir.VectorType(plain, n), n // 2
    # Within each half: `width` numbers of one row, as many of the other; then whole halves.
    widths = [*(2**i for i in range(half.bit_length() - 1)), half]

    def orders(width: int) -> list[list[int]]:
        if width == half:
            return [[*range(o, o + half), *range(n + o, n + o + half)] for o in (0, half)]
        pieces = [list(range(o, o + width)) for o in range(0, half, width)]
        picked = pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]
        both = [[row + k for piece in p for row in (0, n) for k in piece] for p in picked]
        return [[*order, *(i + half for i in order)] for order in both]

    @intrinsic
    def transpose(typing: Any, source: Any, step: Any, to: Any, to_step: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def row(r: int, address: Any, step: Any) -> Any:
                at = builder.gep(
                    builder.inttoptr(address, plain.as_pointer()), [builder.mul(step, ir.Constant(_I64, r))]
                )
                return builder.bitcast(at, vector.as_pointer())

            def mix(x: Any, y: Any, order: list[int]) -> Any:
                return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(_I32, n), order))

            rows = [builder.load(row(r, *args[:2]), align=size) for r in range(n)]
            for width in widths:
                rows = _interleave(rows, width, [lambda x, y, o=o: mix(x, y, o) for o in orders(width)])
            for r in range(n):
                # The steps within halves leave each half's rows in the order of their numbers' bits read backwards.
                place = r - r % half + int(f"{r % half:0{half.bit_length() - 1}b}"[::-1], 2)
                builder.store(rows[place], row(r, *args[2:]), align=size)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp, types.intp), build

    return transpose


def _interleave(rows: list[Any], width: int, mixes: list[Callable[..., Any]]) -> list[Any]:
    """One step of a transposition: rows `width` apart are mixed, in two ways."""
    found = list(rows)
    for r in range(len(rows)):
        if not r & width:
            found[r], found[r + width] = (mix(rows[r], rows[r + width]) for mix in mixes)
    return found


def _random(kind: Lanes) -> Any:
    """`random(address, index, turn)`: uniform numbers in [0, 1), of W counters in memory and the turn that is added.

    Counter-based: the same counter and turn give the same number (SplitMix64; the upper 24 bits).
    """

    @intrinsic
    def random(typing: Any, address: Any, index: Any, turn: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = ir.VectorType(_I64, W)

            def every_lane(value: int) -> Any:
                return ir.Constant(vector, [value] * W)

            at = builder.gep(builder.inttoptr(args[0], _I64.as_pointer()), [args[1]])
            z = builder.load(builder.bitcast(at, vector.as_pointer()), align=8)
            z = builder.add(z, _splat(builder, builder.mul(args[2], ir.Constant(_I64, 0x9E3779B97F4A7C15))))
            for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
                z = builder.mul(builder.xor(z, builder.lshr(z, every_lane(shift))), every_lane(factor))
            z = builder.lshr(builder.xor(z, builder.lshr(z, every_lane(31))), every_lane(40))
            found = builder.sitofp(builder.trunc(z, ir.VectorType(_I32, W)), _vector(kind))
            return builder.fmul(found, ir.Constant(_vector(kind), [2.0**-24] * W))

        return kind(types.intp, types.intp, types.intp), build

    return random


def _words_of(element: Any) -> dict[str, Any]:
    """Memory and conversions for one kind of number."""
    kind, plain = Lanes(element), _ELEMENTS[element]
    vector, size = _vector(kind), 4 if element == types.float32 else 8

    def place(builder: Any, address: Any, index: Any, *, of: Any = vector) -> Any:
        at = builder.gep(builder.inttoptr(address, plain.as_pointer()), [index])
        return builder.bitcast(at, of.as_pointer())

    @intrinsic
    def load(typing: Any, address: Any, index: Any) -> Any:
        """W neighbours from place `index` on."""
        return kind(types.intp, types.intp), lambda c, b, s, a: b.load(place(b, *a), align=size)

    @intrinsic
    def store(typing: Any, address: Any, index: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.store(args[2], place(builder, *args[:2]), align=size)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, kind), build

    def fetching(to_write: int) -> Any:
        """A word that asks for the cache line of a number before it is read or written; it may lie anywhere."""

        @intrinsic
        def fetch(typing: Any, address: Any, index: Any) -> Any:

            def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
                at = builder.bitcast(place(builder, *args), ir.IntType(8).as_pointer())
                function = ir.FunctionType(ir.VoidType(), [at.type, _I32, _I32, _I32])
                call = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0i8")
                builder.call(call, [at, *(ir.Constant(_I32, v) for v in (to_write, 3, 1))])
                return context.get_dummy_value()

            return types.void(types.intp, types.intp), build

        return fetch

    def pointers(builder: Any, address: Any, rows: Any) -> Any:
        """Where each lane finds its number in a row of its own; rows come as whole numbers in Lanes."""
        wide = ir.VectorType(_I64, W)
        at = builder.sext(builder.fptosi(rows, ir.VectorType(_I32, W)), wide)
        at = builder.add(builder.mul(at, ir.Constant(wide, [W * size] * W)), _splat(builder, address))
        at = builder.add(at, ir.Constant(wide, [size * i for i in range(W)]))
        return builder.inttoptr(at, ir.VectorType(plain.as_pointer(), W))

    everywhere, bits = ir.VectorType(ir.IntType(1), W), size * 8

    @intrinsic
    def gather(typing: Any, address: Any, rows: Any) -> Any:
        """From memory with W numbers a row, lane by lane the number of the row given."""

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = pointers(builder, *args)
            function = ir.FunctionType(vector, [at.type, _I32, everywhere, vector])
            name = f"llvm.masked.gather.v{W}f{bits}.v{W}p0f{bits}"
            call = cgutils.get_or_insert_function(builder.module, function, name)
            mask, nothing = ir.Constant(everywhere, [1] * W), ir.Constant(vector, ir.Undefined)
            return builder.call(call, [at, ir.Constant(_I32, size), mask, nothing])

        return kind(types.intp, kind), build

    @intrinsic
    def scatter(typing: Any, address: Any, rows: Any, value: Any) -> Any:
        """The way back: lane by lane a number to the row given."""

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = pointers(builder, *args[:2])
            function = ir.FunctionType(ir.VoidType(), [vector, at.type, _I32, everywhere])
            name = f"llvm.masked.scatter.v{W}f{bits}.v{W}p0f{bits}"
            call = cgutils.get_or_insert_function(builder.module, function, name)
            builder.call(call, [args[2], at, ir.Constant(_I32, size), ir.Constant(everywhere, [1] * W)])
            return context.get_dummy_value()

        return types.void(types.intp, kind, kind), build

    @intrinsic
    def get(typing: Any, address: Any, index: Any) -> Any:
        """One number."""
        return element(types.intp, types.intp), lambda c, b, s, a: b.load(place(b, *a, of=plain), align=size)

    @intrinsic
    def put(typing: Any, address: Any, index: Any, value: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.store(args[2], place(builder, *args[:2], of=plain), align=size)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, element), build

    @intrinsic
    def convert(typing: Any, value: Any) -> Any:
        """Lanes of another kind, or a plain number, as Lanes of this kind."""
        if not isinstance(value, Lanes):
            return kind(kind), lambda c, b, s, a: a[0]

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            if value == kind:
                return args[0]
            return (builder.fpext if kind == F64 else builder.fptrunc)(args[0], vector)

        return kind(value), build

    return {
        "load": load,
        "store": store,
        "fetch": fetching(0),
        "fetch_to_write": fetching(1),
        "gather": gather,
        "scatter": scatter,
        "get": get,
        "put": put,
        "lanes": convert,
        "transpose": _transposition(plain, size),
        "tile": TILE // size,
        "random": _random(kind),
    }


NUMBERS = {"float32": _words_of(types.float32), "float64": _words_of(types.float64)}


@intrinsic
def integer(typing: Any, address: Any, index: Any) -> Any:
    """A 64-bit integer from memory."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(builder.gep(builder.inttoptr(args[0], _I64.as_pointer()), [args[1]]))

    return types.intp(types.intp, types.intp), build


@intrinsic
def put_integer(typing: Any, address: Any, index: Any, value: Any) -> Any:
    """Write a 64-bit integer to memory."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], builder.gep(builder.inttoptr(args[0], _I64.as_pointer()), [args[1]]))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), build


@intrinsic
def count_up(typing: Any, address: Any, index: Any) -> Any:
    """An integer in memory, which becomes one more; each of several threads gets another one."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = builder.gep(builder.inttoptr(args[0], _I64.as_pointer()), [args[1]])
        return builder.atomic_rmw("add", at, ir.Constant(_I64, 1), "monotonic")

    return types.intp(types.intp, types.intp), build


@intrinsic
def invoke(typing: Any, address: Any, arguments: Any) -> Any:
    """Call the compiled function at an address with integer arguments."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        values = [builder.extract_value(args[1], i) for i in range(len(arguments))]
        function = ir.FunctionType(ir.VoidType(), [_I64] * len(values))
        builder.call(builder.inttoptr(args[0], function.as_pointer()), values)
        return context.get_dummy_value()

    return types.void(types.intp, arguments), build


@intrinsic
def fused(typing: Any, x: Any, y: Any, z: Any) -> Any:
    """x·y + z, in one step where the processor has it."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = args[0].type
        name = f"llvm.fmuladd.v{W}f{32 if x == F32 else 64}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name), args
        )

    return x(x, x, x), build


@intrinsic
def every(typing: Any, condition: Any) -> Any:
    """Whether a condition holds in all lanes: a plain truth value, to branch on."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(W))
        return builder.icmp_unsigned("==", bits, ir.Constant(ir.IntType(W), (1 << W) - 1))

    return types.boolean(MASK), build


def _horner(kind: Lanes, coefficients: tuple[float, ...]) -> Any:
    """The polynomial with these coefficients, the highest power first."""

    @intrinsic
    def evaluate(typing: Any, x: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = _vector(kind)
            name = f"llvm.fmuladd.v{W}f{32 if kind == F32 else 64}"
            step = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
            y = ir.Constant(vector, [coefficients[0]] * W)
            for c in coefficients[1:]:
                y = builder.call(step, [y, args[0], ir.Constant(vector, [c] * W)])
            return y

        return kind(kind), build

    return evaluate


@intrinsic
def _two_to_the(typing: Any, n: Any) -> Any:
    """2ⁿ for whole n within the exponents of normal numbers, by writing the exponent's bits."""
    whole, bias, shift = (_I32, 127, 23) if n == F32 else (_I64, 1023, 52)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(whole, W)
        bits = builder.add(builder.fptosi(args[0], vector), ir.Constant(vector, [bias] * W))
        return builder.bitcast(builder.shl(bits, ir.Constant(vector, [shift] * W)), args[0].type)

    return n(n), build


@intrinsic
def _exponent_and_mantissa(typing: Any, x: Any) -> Any:
    """e and m in [√½, √2) with x = m·2ᵉ, of positive normal numbers."""
    whole, digits, half = (_I32, 23, 0x3F3504F3) if x == F32 else (_I64, 52, 0x3FE6A09E667F3BCD)  # the bits of √½

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(whole, W)
        bits, shift = builder.bitcast(args[0], vector), ir.Constant(vector, [digits] * W)
        e = builder.ashr(builder.sub(bits, ir.Constant(vector, [half] * W)), shift)
        m = builder.bitcast(builder.sub(bits, builder.shl(e, shift)), args[0].type)
        narrow = builder.trunc(e, ir.VectorType(_I32, W)) if x == F64 else e  # AVX2 converts 32-bit integers only
        return context.make_tuple(builder, sig.return_type, [builder.sitofp(narrow, args[0].type), m])

    return types.UniTuple(x, 2)(x), build


@intrinsic
def _exponent_of_sum(typing: Any, t: Any) -> Any:
    """2ⁿ, or 0 for the least exponent, where n + bias stands in the last digits of t = 1.5·2^digits + bias + n."""
    whole, digits = (_I32, 23) if t == F32 else (_I64, 52)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(whole, W)
        bits = builder.shl(builder.bitcast(args[0], vector), ir.Constant(vector, [digits] * W))
        return builder.bitcast(bits, args[0].type)

    return t(t), build


@intrinsic
def binade(typing: Any, x: Any) -> Any:
    """The largest power of two that is at most x, for positive normal x: dividing by it rounds nothing."""
    whole, mask = (_I32, 0x7F800000) if x == F32 else (_I64, 0x7FF0000000000000)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.VectorType(whole, W)
        bits = builder.and_(builder.bitcast(args[0], vector), ir.Constant(vector, [mask] * W))
        return builder.bitcast(bits, args[0].type)

    return x(x), build


#: exp x = 1 + x + … for |x| ≤ ½ ln 2, the coefficients from the highest power to the square's.
_EXP_SERIES: dict[Any, tuple[float, ...]] = {
    F32: (
        1.3814320554956794e-3,
        8.36885068565607e-3,
        4.1668400168418884e-2,
        1.666651964187622e-1,
        4.999999403953552e-1,
    ),
    F64: tuple(1 / math.factorial(k) for k in range(13, 1, -1)),
}


def _exponential(kind: Lanes) -> tuple[Any, Any]:
    """exp of any number, and exp of numbers ≤ 0; at most 1.3 last places off.

    With x = n·ln 2 + r, |r| ≤ ½ ln 2, it is 2ⁿ times a polynomial in r: for float32 the one of degree 6 with the least
    relative error (3·10⁻⁹), for float64 the series to degree 13. `falling` gives 0 below 8·10⁻³⁹ (2·10⁻³⁰⁸), `exp`
    below 2.4·10⁻³⁸ (4.5·10⁻³⁰⁸).
    """
    f = np.float32 if kind == F32 else np.float64
    least, most, shift, bias = (-86.6, 88.72, 1.5 * 2**23, 127) if kind == F32 else (-707.7, 709.78, 1.5 * 2**52, 1023)
    high, low = (0.693359375, -2.12194440e-4) if kind == F32 else (0.6931471803691238, 1.9082149292705877e-10)
    coefficients = (*_EXP_SERIES[kind], 1.0)
    polynomial = _horner(kind, (*coefficients, 1.0))
    nothing_below = f(-(bias + 0.1) * math.log(2))
    shift_biased, bias = f(shift + bias), f(bias)
    least, most, shift, high, low, rate = map(f, (least, most, shift, -high, -low, 1 / math.log(2)))
    nothing, one, two, infinite = f(0), f(1), f(2), f(math.inf)
    lanes = NUMBERS["float32" if kind == F32 else "float64"]["lanes"]

    @njit(**INLINE)
    def rest(z: Any, n: Any) -> Any:
        return fused(n, lanes(low), fused(n, lanes(high), z))

    @njit(**INLINE)
    def parts(x: Any) -> Any:
        """r and 2ⁿ of x ≤ 0, and of larger ones up to 88 (709)."""
        z = where(x < nothing_below, nothing_below, x)
        t = fused(z, lanes(rate), lanes(shift_biased))  # adding 1.5·2^digits rounds to a whole number
        return rest(z, t - shift_biased), _exponent_of_sum(t)

    @njit(**INLINE)
    def falling(x: Any) -> Any:
        """exp x for such x."""
        r, power = parts(x)
        return polynomial(r) * power

    @njit(**INLINE)
    def exp(x: Any) -> Any:
        """exp x for any x."""
        small, large = x < least, x > most
        z = where(small | large, nothing, x)
        n = fused(z, lanes(rate), lanes(shift)) - shift
        # 2ⁿ⁻¹ twice: 2ⁿ itself may lie beyond the largest number where the result does not.
        y = polynomial(rest(z, n)) * _two_to_the(n - one) * two
        return where(small, nothing, where(large, infinite, y))

    return exp, falling


def _exponential_less_one(kind: Lanes) -> Any:
    """exp x − 1 for 0 ≤ x ≤ 1, near 0 as exact as far from it: at most 1.4 last places off.

    It is x + x² times a polynomial: for float32 the one of degree 5 with the least relative error (4·10⁻⁹), for float64
    the series to degree 18.
    """
    fitted: tuple[float, ...] = (3.059551228376308e-4, 1.235344001898231e-3, 8.436728602857754e-3)
    fitted += (4.163217202318842e-2, 1.666718806419261e-1, 4.999997413147482e-1)
    series = tuple(1 / math.factorial(k) for k in range(18, 1, -1))
    polynomial = _horner(kind, fitted if kind == F32 else series)

    @njit(**INLINE)
    def exp_less_one(x: Any) -> Any:
        return fused(x * x, polynomial(x), x)

    return exp_less_one


def _logarithm32() -> tuple[Any, Any]:
    """log as f − f²/2 + f³·P(f), f = m − 1, with the P of degree 6 of least relative error (3·10⁻⁸).

    At most 1.2 units in the last place off.
    """
    f = np.float32
    coefficients: tuple[float, ...] = (8.700431138277054e-2, -1.4267487823963165e-1, 1.4914768934249878e-1)
    coefficients += (-1.657758504152298e-1, 1.9963063299655914e-1, -2.500133812427521e-1, 3.333390951156616e-1)
    polynomial = _horner(F32, coefficients)
    one, half, high, low, tiny = f(1), f(-0.5), f(0.693359375), f(-2.12194440e-4), f(1.1754944e-38)
    lanes = NUMBERS["float32"]["lanes"]

    @njit(**INLINE)
    def normal(x: Any) -> Any:
        """log x for positive normal x; some number below −87 for smaller ones and 0."""
        e, m = _exponent_and_mantissa(x)
        r = m - one
        square = r * r
        y = fused(polynomial(r) * r, square, fused(e, lanes(low), square * half))
        return fused(e, lanes(high), r + y)

    @njit(**INLINE)
    def log(x: Any) -> Any:
        """log x for x ≥ 0; −∞ at 0, and numbers below the normal ones count as the smallest normal one."""
        y = normal(where(x < tiny, tiny, x))
        return where(x == f(0), f(-np.inf), where(x < f(np.inf), y, x))

    return log, normal


def _logarithm64() -> tuple[Any, Any]:
    """log as e·ln 2 + 2 artanh z, z = (m−1)/(m+1), 12 terms of the series: at most 3 last places off."""
    series, ln2 = _horner(F64, tuple(2 / (2 * k + 1) for k in range(11, -1, -1))), math.log(2)
    tiny = 2.2250738585072014e-308

    @njit(**INLINE)
    def normal(x: Any) -> Any:
        """log x for positive normal x; some number below −707 for smaller ones and 0."""
        e, m = _exponent_and_mantissa(x)
        z = (m - 1.0) / (m + 1.0)
        return e * ln2 + z * series(z * z)

    @njit(**INLINE)
    def log(x: Any) -> Any:
        """log x for x ≥ 0; −∞ at 0, and numbers below the normal ones count as the smallest normal one."""
        y = normal(where(x < tiny, tiny, x))
        return where(x == 0.0, -np.inf, where(x < np.inf, y, x))

    return log, normal


def _binary_powers(kind: Lanes) -> dict[str, Any]:
    """Words for powers of positive normal numbers, by logarithms and exponentials to the base 2.

    A logarithm is a whole number e and a rest f, |f| ≤ ½, at most 5·10⁻⁸ (float64: 10⁻¹⁶) off: apart, so that a large e
    costs f no digits. A power is then 2ⁿ times a polynomial, as in `_exponential`.
    """
    f = np.float32 if kind == F32 else np.float64
    shift_biased = f((1.5 * 2**23 + 127) if kind == F32 else (1.5 * 2**52 + 1023))
    least, most = (f(-127), f(127)) if kind == F32 else (f(-1023), f(1023))
    lanes = NUMBERS["float32" if kind == F32 else "float64"]["lanes"]
    nothing, one = f(0), f(1)
    series = (*_EXP_SERIES[kind], 1.0, 1.0)
    scaled = [c * math.log(2) ** k for c, k in zip(series, range(len(series) - 1, -1, -1), strict=True)]
    exponential, logarithm = _horner(kind, tuple(scaled)), _binary_logarithm(kind)

    @njit(**INLINE)
    def log2(x: Any) -> Any:
        """e and f of log₂ x = e + f."""
        e, m = _exponent_and_mantissa(x)
        return e, logarithm(m - one)

    @njit(**INLINE)
    def nearest(z: Any) -> Any:
        """−n and 2ⁿ of the whole number n nearest to z; beyond the normal numbers 0 and the largest power of two."""
        inner = where(z < least, least, z)
        t = where(inner > most, most, inner) + lanes(shift_biased)  # adding 1.5·2^digits rounds to a whole number
        return shift_biased - t, _exponent_of_sum(t)

    @njit(**INLINE)
    def power(e: Any, f: Any, p: Any) -> Any:
        """x to the power p, of x's logarithm e + f; 0 or at least 2^127 (float64: 2^1023) beyond the range, or NaN."""
        minus_n, unit = nearest(fused(p, e, p * f))
        return exponential(fused(p, f, fused(p, e, minus_n))) * unit

    @njit(**INLINE)
    def root_of(e: Any, f: Any, p: Any) -> Any:
        """x to the power 1/p, likewise."""
        inverse = one / p
        high = e * inverse
        rest = fused(nothing - high, p, e) * inverse  # what the quotient has rounded away
        minus_n, unit = nearest(fused(f, inverse, high))
        return exponential((high + minus_n) + fused(f, inverse, rest)) * unit

    return {"log2": log2, "power": power, "root_of": root_of}


def _binary_logarithm(kind: Lanes) -> Any:
    """log₂(1 + t), √½ ≤ 1 + t < √2: for float32 t times a polynomial, for float64 the series of artanh."""
    fitted: tuple[float, ...] = (
        0.12542767914953207,
        -0.21028967868442328,
        0.21736576446085765,
        -0.23852120085988104,
        0.2876587556626326,
    )
    fitted += (-0.3607211365390641, 0.48092242262870555, -0.7213471289265461, 1.4426948701217879)
    series = tuple(2 / (2 * k + 1) / math.log(2) for k in range(11, -1, -1))
    polynomial, two = _horner(kind, fitted if kind == F32 else series), 2.0

    @njit(**INLINE)
    def by_polynomial(t: Any) -> Any:
        return polynomial(t) * t

    @njit(**INLINE)
    def by_series(t: Any) -> Any:
        z = t / (two + t)
        return z * polynomial(z * z)

    return by_polynomial if kind == F32 else by_series


EXP = {name: _exponential(kind) for name, kind in LANES.items()}
EXP_LESS_ONE = {name: _exponential_less_one(kind) for name, kind in LANES.items()}
LOG = {"float32": _logarithm32(), "float64": _logarithm64()}


def _halfway(kind: Lanes) -> Any:
    """`halfway(a, b)` for a < b: the number in (a, b] that has as many floats before it as behind it."""
    whole, digits = (_I32, 32) if kind == F32 else (_I64, 64)
    vector = ir.VectorType(whole, W)

    @intrinsic
    def halfway(typing: Any, a: Any, b: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def flipped(bits: Any) -> Any:
                """Bits of floats as integers that grow with them, and back: all but the sign of negative ones."""
                sign = builder.ashr(bits, ir.Constant(vector, [digits - 1] * W))
                return builder.xor(bits, builder.lshr(sign, ir.Constant(vector, [1] * W)))

            x, y = (flipped(builder.bitcast(v, vector)) for v in args)
            half = builder.ashr(builder.xor(x, y), ir.Constant(vector, [1] * W))
            return builder.bitcast(flipped(builder.sub(builder.or_(x, y), half)), args[0].type)

        return kind(kind, kind), build

    return halfway


HALFWAY = {name: _halfway(kind) for name, kind in LANES.items()}


def words(name: str) -> ModuleType:
    """The arithmetic of `float32` or `float64`, as a module: Numba looks its words up when it compiles."""
    found = ModuleType(f"poolkit_lanes_{name}")
    vars(found).update(
        NUMBERS[name],
        exp=EXP[name][0],
        falling_exp=EXP[name][1],
        **_binary_powers(LANES[name]),
        exp_less_one=EXP_LESS_ONE[name],
        log=LOG[name][0],
        normal_log=LOG[name][1],
        where=where,
        abs=absolute,
        sqrt=root,
        fused=fused,
        every=every,
        binade=binade,
        halfway=HALFWAY[name],
    )
    vars(found).update(row=W * (4 if name == "float32" else 8))  # bytes
    vars(found).update(tiny=float(np.finfo(name).tiny), least=float(np.finfo(name).min))
    return found
