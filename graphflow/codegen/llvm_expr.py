"""A small expression language: scalar functions written once, with two meanings.

A function such as ``def exp(x): ...`` over :class:`Value` is plain Python over
operators.  Run on :class:`LLVMMachine` it writes the text of an LLVM function
(scalar, always inlined; the loop vectoriser widens it); run on
:class:`NumpyMachine` it computes on NumPy arrays.  No control flow exists in
the language, only :func:`select`, so every function vectorises.

Types are the IR's short names: ``f32 f64``, ``i8 … i64``, ``u8 … u64``, and
``bool`` for conditions.  Operators never re-associate or contract: error terms
of compensated arithmetic survive.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from graphflow.codegen import avx512

FLOATS = ("f32", "f64")
_LLVM_TYPES = {
    "bool": "i1", "f32": "float", "f64": "double",
    "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64",
    "u8": "i8", "u16": "i16", "u32": "i32", "u64": "i64",
}  # fmt: skip
_NUMPY_TYPES: dict[str, Any] = {
    "bool": np.bool_, "f32": np.float32, "f64": np.float64,
    "i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64,
    "u8": np.uint8, "u16": np.uint16, "u32": np.uint32, "u64": np.uint64,
}  # fmt: skip
_SPLITTERS = {"f32": 4097.0, "f64": 134217729.0}  # 2^ceil(p/2) + 1 (Veltkamp)

Payload: TypeAlias = Any
Number: TypeAlias = "Value | int | float"


def bits(type: str) -> int:
    """Width of ``type`` in bits (1 for conditions)."""
    return 1 if type == "bool" else int(type[1:])


class Machine(Protocol):
    """Evaluates the primitive operations of the language."""

    @property
    def has_fma(self) -> bool:
        """True when a fused multiply-add is one instruction."""

    @property
    def has_avx512(self) -> bool:
        """True when :func:`lookup` and :func:`scaled` are one instruction each."""

    def constant(self, type: str, value: int | float) -> Payload:
        """A literal."""

    def binary(self, op: str, type: str, a: Payload, b: Payload) -> Payload:
        """``add sub mul div rem and or xor shl shr``."""

    def compare(self, op: str, type: str, a: Payload, b: Payload) -> Payload:
        """``lt le gt ge eq ne``, giving a ``bool``."""

    def call(self, op: str, type: str, arguments: Sequence[Payload]) -> Payload:
        """``neg sqrt abs floor ceil trunc rint copysign fma maximum minimum``."""

    def select(self, type: str, condition: Payload, a: Payload, b: Payload) -> Payload:
        """``a`` where ``condition``, else ``b``."""

    def convert(self, source: str, target: str, a: Payload) -> Payload:
        """The same number in another type."""

    def bitcast(self, source: str, target: str, a: Payload) -> Payload:
        """The same bits as another type."""

    def lookup(self, table: Sequence[float], index: Payload) -> Payload:
        """:func:`lookup`."""

    def scaled(self, x: Payload, n: Payload) -> Payload:
        """:func:`scaled`."""


class Value:
    """A scalar of the language.  Python numbers on either side take its type."""

    __slots__ = ("machine", "payload", "type")

    def __init__(self, machine: Machine, type: str, payload: Payload) -> None:
        self.machine, self.type, self.payload = machine, type, payload

    def constant(self, value: int | float) -> Value:
        """``value`` as a constant of this value's type."""
        return Value(self.machine, self.type, self.machine.constant(self.type, value))

    def _coerce(self, other: Number) -> Value:
        if isinstance(other, Value):
            if other.type != self.type:
                raise TypeError(f"{self.type} and {other.type} do not mix; convert one of them")
            return other
        return self.constant(other)

    def _binary(self, op: str, other: Number, swap: bool = False) -> Value:
        b = self._coerce(other).payload
        first, second = (b, self.payload) if swap else (self.payload, b)
        return Value(self.machine, self.type, self.machine.binary(op, self.type, first, second))

    def _compare(self, op: str, other: Number) -> Value:
        b = self._coerce(other).payload
        return Value(self.machine, "bool", self.machine.compare(op, self.type, self.payload, b))

    def __add__(self, other: Number) -> Value:
        return self._binary("add", other)

    __radd__ = __add__

    def __sub__(self, other: Number) -> Value:
        return self._binary("sub", other)

    def __rsub__(self, other: Number) -> Value:
        return self._binary("sub", other, swap=True)

    def __mul__(self, other: Number) -> Value:
        return self._binary("mul", other)

    __rmul__ = __mul__

    def __truediv__(self, other: Number) -> Value:
        return self._binary("div", other)

    def __rtruediv__(self, other: Number) -> Value:
        return self._binary("div", other, swap=True)

    def __mod__(self, other: Number) -> Value:
        return self._binary("rem", other)

    def __and__(self, other: Number) -> Value:
        return self._binary("and", other)

    def __or__(self, other: Number) -> Value:
        return self._binary("or", other)

    def __xor__(self, other: Number) -> Value:
        return self._binary("xor", other)

    def __lshift__(self, count: Number) -> Value:
        return self._binary("shl", count)

    def __rshift__(self, count: Number) -> Value:
        return self._binary("shr", count)

    def __neg__(self) -> Value:
        if self.type in FLOATS:
            return self.call("neg")
        return self.constant(0) - self

    def __invert__(self) -> Value:
        return self ^ (1 if self.type == "bool" else -1)

    def __lt__(self, other: Number) -> Value:
        return self._compare("lt", other)

    def __le__(self, other: Number) -> Value:
        return self._compare("le", other)

    def __gt__(self, other: Number) -> Value:
        return self._compare("gt", other)

    def __ge__(self, other: Number) -> Value:
        return self._compare("ge", other)

    def equals(self, other: Number) -> Value:
        """Ordered equality (False for NaN)."""
        return self._compare("eq", other)

    def differs(self, other: Number) -> Value:
        """The negation of :meth:`equals` (True for NaN)."""
        return self._compare("ne", other)

    def call(self, op: str, *others: Number) -> Value:
        """Apply a primitive of this type: ``neg sqrt abs floor ceil trunc rint …``."""
        arguments = [self.payload, *(self._coerce(o).payload for o in others)]
        return Value(self.machine, self.type, self.machine.call(op, self.type, arguments))

    def convert(self, type: str) -> Value:
        """The same number in another type (floats truncate towards zero, integers wrap)."""
        if type == self.type:
            return self
        return Value(self.machine, type, self.machine.convert(self.type, type, self.payload))

    def bitcast(self, type: str) -> Value:
        """The same bits as another type of the same width."""
        return Value(self.machine, type, self.machine.bitcast(self.type, type, self.payload))


def select(condition: Value, a: Number, b: Number) -> Value:
    """``a`` where ``condition``, else ``b``; one of them must be a :class:`Value`."""
    if isinstance(a, Value):
        b = a._coerce(b)
    elif isinstance(b, Value):
        a = b.constant(a)
    else:
        raise TypeError("select needs a Value to know its type from")
    machine = condition.machine
    payload = machine.select(a.type, condition.payload, a.payload, b.payload)
    return Value(machine, a.type, payload)


def mad(a: Value, b: Number, c: Number) -> Value:
    """``a * b + c``, rounded once where the machine can, else twice."""
    if a.machine.has_fma:
        return a.call("fma", b, c)
    return a * b + c


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """Horner's rule; ``coefficients`` run from the constant term upwards."""
    result = x.constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = mad(result, x, coefficient)
    return result


def split_polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """:func:`polynomial` as its even half plus ``x`` times its odd half: two chains of half the
    length for one more product.  Worth it where a loop waits for the longest chain."""
    square = x * x
    even, odd = polynomial(square, coefficients[::2]), polynomial(square, coefficients[1::2])
    return mad(odd, x, even)


def lookup(table: Sequence[float], index: Value) -> Value:
    """The f32 that the low five bits of ``index`` (i32) name in ``table``, which ends in zeros.

    For machines that have it (:attr:`Machine.has_avx512`).
    """
    padded = [*table, *[0.0] * (avx512.TABLE_SIZE - len(table))]
    return Value(index.machine, "f32", index.machine.lookup(padded, index.payload))


def scaled(x: Value, n: Value) -> Value:
    """``x * 2^n`` of f32, rounded once, for whole ``n``.

    For machines that have it (:attr:`Machine.has_avx512`).
    """
    return Value(x.machine, "f32", x.machine.scaled(x.payload, n.payload))


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """``s + e == a + b`` exactly, ``s`` the rounded sum (Knuth)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def fast_two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """:func:`two_sum` for ``|a| >= |b|`` (Dekker)."""
    s = a + b
    return s, b - (s - a)


def two_product(a: Value, b: Value) -> tuple[Value, Value]:
    """``p + e == a * b`` exactly, ``p`` the rounded product."""
    p = a * b
    if a.machine.has_fma:
        return p, a.call("fma", b, -p)
    (a_high, a_low), (b_high, b_low) = _split(a), _split(b)
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _split(a: Value) -> tuple[Value, Value]:
    scaled = a * _SPLITTERS[a.type]
    high = scaled - (scaled - a)
    return high, a - high


_FLOAT_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv", "rem": "frem"}
_SIGNED = {"div": "sdiv", "rem": "srem", "shr": "ashr"}
_UNSIGNED = {"div": "udiv", "rem": "urem", "shr": "lshr"}
_FLOAT_CALLS = {
    "sqrt": "sqrt", "abs": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
    "rint": "rint", "copysign": "copysign", "fma": "fma",
    "maximum": "maximum", "minimum": "minimum",
}  # fmt: skip


class LLVMMachine:
    """Writes LLVM instructions, one line of text each.  Payloads are operand names."""

    def __init__(self, has_fma: bool, has_avx512: bool = False) -> None:
        self.has_fma, self.has_avx512 = has_fma, has_avx512
        self.lines: list[str] = []
        self.declarations: set[str] = set()

    def _emit(self, text: str) -> str:
        name = f"%t{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def constant(self, type: str, value: int | float) -> str:
        """A literal: floats as the hexadecimal double LLVM wants."""
        if type in FLOATS:
            rounded = float(_NUMPY_TYPES[type](value))
            return f"0x{struct.unpack('<Q', struct.pack('<d', rounded))[0]:016X}"
        if type == "bool":
            return "true" if value else "false"
        return str(int(value))

    def binary(self, op: str, type: str, a: str, b: str) -> str:
        """An arithmetic, bit or shift instruction."""
        if type in FLOATS:
            op = _FLOAT_BINARY[op]
        else:
            op = (_UNSIGNED if type.startswith("u") else _SIGNED).get(op, op)
        return self._emit(f"{op} {_LLVM_TYPES[type]} {a}, {b}")

    def compare(self, op: str, type: str, a: str, b: str) -> str:
        """A comparison (ordered for floats, but ``ne``)."""
        if type in FLOATS:
            predicate = ("une" if op == "ne" else "o" + op) if op != "eq" else "oeq"
            return self._emit(f"fcmp {predicate} {_LLVM_TYPES[type]} {a}, {b}")
        if op not in ("eq", "ne"):
            op = ("u" if type.startswith("u") or type == "bool" else "s") + op
        return self._emit(f"icmp {op} {_LLVM_TYPES[type]} {a}, {b}")

    def call(self, op: str, type: str, arguments: Sequence[str]) -> str:
        """A floating-point intrinsic."""
        llvm_type = _LLVM_TYPES[type]
        if op == "neg":
            return self._emit(f"fneg {llvm_type} {arguments[0]}")
        name = f"llvm.{_FLOAT_CALLS[op]}.{type}"
        operands = ", ".join(f"{llvm_type} {a}" for a in arguments)
        kinds = ", ".join([llvm_type] * len(arguments))
        self.declarations.add(f"declare {llvm_type} @{name}({kinds})")
        # The sign of a zero result of maximum(-0, +0) is of no interest, and costs.
        flags = "nsz " if op in ("maximum", "minimum") else ""
        return self._emit(f"call {flags}{llvm_type} @{name}({operands})")

    def select(self, type: str, condition: str, a: str, b: str) -> str:
        """A conditional move."""
        llvm_type = _LLVM_TYPES[type]
        return self._emit(f"select i1 {condition}, {llvm_type} {a}, {llvm_type} {b}")

    def convert(self, source: str, target: str, a: str) -> str:
        """A conversion.  Out-of-range floats become some integer, never undefined."""
        old, new = _LLVM_TYPES[source], _LLVM_TYPES[target]
        if source in FLOATS and target in FLOATS:
            op = "fpext" if source == "f32" else "fptrunc"
        elif target in FLOATS:
            op = "uitofp" if source.startswith("u") or source == "bool" else "sitofp"
        elif source in FLOATS:
            unfrozen = self._emit(f"fptosi {old} {a} to {new}")
            return self._emit(f"freeze {new} {unfrozen}")
        elif bits(source) == bits(target):
            return a
        elif bits(source) > bits(target):
            op = "trunc"
        else:
            op = "zext" if source.startswith("u") or source == "bool" else "sext"
        return self._emit(f"{op} {old} {a} to {new}")

    def bitcast(self, source: str, target: str, a: str) -> str:
        """A reinterpretation of bits."""
        old, new = _LLVM_TYPES[source], _LLVM_TYPES[target]
        return a if old == new else self._emit(f"bitcast {old} {a} to {new}")

    def lookup(self, table: Sequence[float], index: str) -> str:
        """A call that the loop vectoriser makes one of vectors."""
        values = [self.constant("f32", value) for value in table]
        name = f"@vm.table.{zlib.crc32(' '.join(values).encode()):08x}"
        row = ", ".join(f"float {value}" for value in values)
        kind = f"[{len(values)} x float]"
        self.declarations.add(f"{name} = internal constant {kind} [{row}], align 64")
        self.declarations.update(avx512.DECLARATIONS)
        return self._emit(f"call float @{avx512.LOOKUP}(i32 {index}, ptr {name})")

    def scaled(self, x: str, n: str) -> str:
        """A call that the loop vectoriser makes one of vectors."""
        self.declarations.update(avx512.DECLARATIONS)
        return self._emit(f"call float @{avx512.SCALED}(float {x}, float {n})")


class NumpyMachine:
    """Computes on NumPy arrays of the exact types."""

    has_fma = True
    has_avx512 = True

    def constant(self, type: str, value: int | float) -> Payload:
        """A NumPy scalar; integers wrap."""
        if type not in FLOATS and type != "bool":
            width = bits(type)
            value = int(value) & ((1 << width) - 1)
            if type.startswith("i") and value >> (width - 1):
                value -= 1 << width
        return _NUMPY_TYPES[type](value)

    def binary(self, op: str, type: str, a: Payload, b: Payload) -> Payload:
        """An arithmetic, bit or shift operation."""
        if op == "div" and type not in FLOATS:
            return _integer_quotient(a, b)
        if op == "rem":
            return np.fmod(a, b)
        return _NUMPY_BINARY[op](a, b)

    def compare(self, op: str, type: str, a: Payload, b: Payload) -> Payload:
        """A comparison."""
        return _NUMPY_COMPARE[op](a, b)

    def call(self, op: str, type: str, arguments: Sequence[Payload]) -> Payload:
        """A floating-point primitive."""
        if op == "fma":
            wide: Any = np.float64 if type == "f32" else np.longdouble
            a, b, c = (np.asarray(x).astype(wide) for x in arguments)
            return (a * b + c).astype(_NUMPY_TYPES[type])
        return _NUMPY_CALLS[op](*arguments)

    def select(self, type: str, condition: Payload, a: Payload, b: Payload) -> Payload:
        """Elementwise choice."""
        return np.where(condition, a, b)

    def convert(self, source: str, target: str, a: Payload) -> Payload:
        """A conversion; out-of-range floats give some integer."""
        return np.asarray(a).astype(_NUMPY_TYPES[target])

    def bitcast(self, source: str, target: str, a: Payload) -> Payload:
        """A reinterpretation of bits."""
        return np.asarray(a).view(_NUMPY_TYPES[target])

    def lookup(self, table: Sequence[float], index: Payload) -> Payload:
        """Elements of an array."""
        return np.asarray(table, np.float32)[index & (avx512.TABLE_SIZE - 1)]

    def scaled(self, x: Payload, n: Payload) -> Payload:
        """Another exponent; of NaN any, which stays NaN."""
        return np.ldexp(x, np.nan_to_num(n).astype(np.int32))


def _integer_quotient(a: Payload, b: Payload) -> Payload:
    quotient = np.floor_divide(a, b)
    inexact = (np.fmod(a, b) != 0) & ((np.asarray(a) < 0) != (np.asarray(b) < 0))
    return quotient + inexact.astype(quotient.dtype)


_NUMPY_BINARY: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "shl": np.left_shift, "shr": np.right_shift,
}  # fmt: skip
_NUMPY_COMPARE: dict[str, Callable[..., Any]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal,
}  # fmt: skip
_NUMPY_CALLS: dict[str, Callable[..., Any]] = {
    "neg": np.negative, "sqrt": np.sqrt, "abs": np.abs, "floor": np.floor, "ceil": np.ceil,
    "trunc": np.trunc, "rint": np.rint, "copysign": np.copysign,
    "maximum": np.maximum, "minimum": np.minimum,
}  # fmt: skip


def llvm_function(
    name: str, function: Callable[..., Value], types: Sequence[str], machine: LLVMMachine
) -> tuple[str, frozenset[str]]:
    """LLVM text of ``function`` at argument ``types``, and the declarations it needs."""
    arguments = [Value(machine, type, f"%a{i}") for i, type in enumerate(types)]
    result = function(*arguments)
    parameters = ", ".join(f"{_LLVM_TYPES[t]} %a{i}" for i, t in enumerate(types))
    result_type = _LLVM_TYPES[result.type]
    lines = [
        f"define internal {result_type} @{name}({parameters}) alwaysinline nounwind {{",
        *machine.lines,
        f"  ret {result_type} {result.payload}",
        "}",
    ]
    return "\n".join(lines), frozenset(machine.declarations)


def result_type(function: Callable[..., Value], types: Sequence[str]) -> str:
    """The type ``function`` returns at argument ``types``."""
    machine = LLVMMachine(has_fma=True)
    return function(*[Value(machine, t, f"%a{i}") for i, t in enumerate(types)]).type


def evaluate(function: Callable[..., Value], types: Sequence[str], arguments: Sequence[Any]) -> Any:
    """``function`` on NumPy arrays or scalars, converted to ``types`` first."""
    machine = NumpyMachine()
    values = [
        Value(machine, type, np.asarray(a).astype(_NUMPY_TYPES[type]))
        for type, a in zip(types, arguments, strict=True)
    ]
    with np.errstate(all="ignore"):
        return function(*values).payload[()]
