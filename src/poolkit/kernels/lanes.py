"""Numbers side by side: the arithmetic in which the CPU kernels are written.

A value of type `Lanes` holds W numbers of W windows and maps to vector registers. The usual operators work on it, a
plain number counts for every lane, and `where(condition, a, b)` takes the place of a branch. The vectors are explicit,
so nothing depends on what an optimiser can prove about a loop, a window may have any number of cells, and a kernel
compiles in about a second.

Memory is reached by address: `load` and `store` move W neighbouring numbers, with no bounds checked here. The walkers
(`walk.py`) see to it that every address lies in a tensor or in scratch memory.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from types import ModuleType
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import extending, njit, types
from numba.core import cgutils
from numba.core.typeconv import Conversion
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, lower_cast, models, register_model

#: Windows side by side: two registers of eight float32 keep both of a core's vector units busy.
W = 16

intrinsic: Any = extending.intrinsic  # its declared types do not know that the first argument is Numba's own

# `numpy` divides without a test for zero, which would be a branch; a helper that is not inlined would pass its vectors
# through memory.
INLINE: dict[str, Any] = {"error_model": "numpy", "forceinline": True}

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

    @intrinsic
    def load_even(typing: Any, address: Any, index: Any) -> Any:
        """Every second one of 2·W neighbours."""

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            both = builder.load(place(builder, *args, of=ir.VectorType(plain, 2 * W)), align=size)
            return builder.shuffle_vector(both, both, ir.Constant(ir.VectorType(_I32, W), list(range(0, 2 * W, 2))))

        return kind(types.intp, types.intp), build

    @intrinsic
    def add_pairs(typing: Any, address: Any, index: Any, even: Any, odd: Any) -> Any:
        """Add `even` to every second one of 2·W neighbours and `odd` to the others."""

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            at = place(builder, *args[:2], of=ir.VectorType(plain, 2 * W))
            order = [i // 2 + W * (i % 2) for i in range(2 * W)]
            pairs = builder.shuffle_vector(args[2], args[3], ir.Constant(ir.VectorType(_I32, 2 * W), order))
            builder.store(builder.fadd(builder.load(at, align=size), pairs), at, align=size)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, kind, kind), build

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
        "load_even": load_even,
        "add_pairs": add_pairs,
        "get": get,
        "put": put,
        "lanes": convert,
    }


NUMBERS = {"float32": _words_of(types.float32), "float64": _words_of(types.float64)}


@intrinsic
def integer(typing: Any, address: Any, index: Any) -> Any:
    """A 64-bit integer from memory."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(builder.gep(builder.inttoptr(args[0], _I64.as_pointer()), [args[1]]))

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


def _exponential(kind: Lanes) -> tuple[Any, Any]:
    """exp of any number and exp of numbers ≤ 0, at most 1.3 units in the last place off.

    With x = n·ln 2 + r, |r| ≤ ½ ln 2, it is 2ⁿ times a polynomial in r.

    float32 has Cephes' minimax polynomial, float64 14 terms of the series. Results below 2.4·10⁻³⁸ (4.5·10⁻³⁰⁸) are 0.
    """
    f = np.float32 if kind == F32 else np.float64
    least, most, shift = (-86.6, 88.72, 1.5 * 2**23) if kind == F32 else (-707.7, 709.78, 1.5 * 2**52)
    high, low = (0.693359375, -2.12194440e-4) if kind == F32 else (0.6931471803691238, 1.9082149292705877e-10)
    minimax = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    series = tuple(1 / math.factorial(k) for k in range(13, 1, -1))
    polynomial = _horner(kind, minimax if kind == F32 else series)
    least, most, shift, high, low, rate = map(f, (least, most, shift, -high, -low, 1 / math.log(2)))
    nothing, one, two, infinite = f(0), f(1), f(2), f(math.inf)
    lanes = NUMBERS["float32" if kind == F32 else "float64"]["lanes"]

    @njit(**INLINE)
    def parts(z: Any) -> Any:
        """n and exp(z)/2ⁿ for z within the range."""
        n = fused(z, lanes(rate), lanes(shift)) - shift  # adding 1.5·2^(digits) rounds to a whole number
        r = fused(n, lanes(low), fused(n, lanes(high), z))
        return n, fused(polynomial(r) * r, r, r + one)

    @njit(**INLINE)
    def falling(x: Any) -> Any:
        """exp x for x ≤ 0."""
        small = x < least
        n, y = parts(where(small, least, x))
        return where(small, nothing, y * _two_to_the(n))

    @njit(**INLINE)
    def exp(x: Any) -> Any:
        """exp x for any x."""
        small, large = x < least, x > most
        n, y = parts(where(small | large, nothing, x))
        # 2ⁿ⁻¹ twice: 2ⁿ itself may lie beyond the largest number where the result does not.
        y = y * _two_to_the(n - one) * two
        return where(small, nothing, where(large, infinite, y))

    return exp, falling


def _logarithm32() -> Any:
    """log with Cephes' polynomial in f = m − 1, at most 1 unit in the last place off."""
    f = np.float32
    coefficients: tuple[float, ...] = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1)
    coefficients += (1.4249322787e-1, -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)
    polynomial = _horner(F32, coefficients)
    one, half, high, low, tiny = f(1), f(-0.5), f(0.693359375), f(-2.12194440e-4), f(1.1754944e-38)
    lanes = NUMBERS["float32"]["lanes"]

    @njit(**INLINE)
    def log(x: Any) -> Any:
        """log x for x ≥ 0; −∞ at 0, and numbers below the normal ones count as the smallest normal one."""
        e, m = _exponent_and_mantissa(where(x < tiny, tiny, x))
        r = m - one
        square = r * r
        y = fused(polynomial(r) * r, square, fused(e, lanes(low), square * half))
        y = fused(e, lanes(high), r + y)
        return where(x == f(0), f(-np.inf), where(x < f(np.inf), y, x))

    return log


def _logarithm64() -> Any:
    """log as e·ln 2 + 2 artanh z, z = (m−1)/(m+1), 12 terms of the series: at most 3 last places off."""
    series, ln2 = _horner(F64, tuple(2 / (2 * k + 1) for k in range(11, -1, -1))), math.log(2)
    tiny = 2.2250738585072014e-308

    @njit(**INLINE)
    def log(x: Any) -> Any:
        """log x for x ≥ 0; −∞ at 0, and numbers below the normal ones count as the smallest normal one."""
        e, m = _exponent_and_mantissa(where(x < tiny, tiny, x))
        z = (m - 1.0) / (m + 1.0)
        y = e * ln2 + z * series(z * z)
        return where(x == 0.0, -np.inf, where(x < np.inf, y, x))

    return log


EXP = {name: _exponential(kind) for name, kind in LANES.items()}
LOG = {"float32": _logarithm32(), "float64": _logarithm64()}


def _ordered(kind: Lanes) -> tuple[Any, Any]:
    """Numbers as the bits of an integer that grows with them: `with_bit(key, b)` and the number of a key.

    Keys travel as Lanes of floats whose bits are the integer's.
    """
    whole, digits = (_I32, 32) if kind == F32 else (_I64, 64)
    vector = ir.VectorType(whole, W)

    @intrinsic
    def with_bit(typing: Any, key: Any, bit: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            one = builder.shl(ir.Constant(_I64, 1), args[1])
            one = builder.trunc(one, _I32) if kind == F32 else one
            return builder.bitcast(builder.or_(builder.bitcast(args[0], vector), _splat(builder, one)), _vector(kind))

        return kind(kind, types.intp), build

    @intrinsic
    def number(typing: Any, key: Any) -> Any:
        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            bits = builder.bitcast(args[0], vector)
            negative = builder.icmp_signed(">=", bits, ir.Constant(vector, [0] * W))
            sign = ir.Constant(vector, [1 << (digits - 1)] * W)
            return builder.bitcast(builder.select(negative, builder.not_(bits), builder.xor(bits, sign)), _vector(kind))

        return kind(kind), build

    return with_bit, number


ORDERED = {name: _ordered(kind) for name, kind in LANES.items()}


def words(name: str) -> ModuleType:
    """The arithmetic of `float32` or `float64`, as a module: Numba looks its words up when it compiles."""
    found = ModuleType(f"poolkit_lanes_{name}")
    vars(found).update(
        NUMBERS[name],
        exp=EXP[name][0],
        falling_exp=EXP[name][1],
        log=LOG[name],
        where=where,
        abs=absolute,
        sqrt=root,
        every=every,
    )
    vars(found).update(tiny=float(np.finfo(name).tiny))
    vars(found).update(zip(("with_bit", "number_of"), ORDERED[name], strict=True), bits=32 if name == "float32" else 64)
    return found
