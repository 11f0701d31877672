"""Every primitive in ONNX: ``PRIMITIVES[name](writer, node)`` is the name of its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.ir import types as T
from graphflow.ir.dims import SymDim
from graphflow.ir.node import Node
from graphflow.onnx.exporting.writer import END, Writer
from graphflow.onnx.operators.table import number_of_dtype

Write = Callable[[Writer, Node], Any]
PRIMITIVES: dict[str, Write] = {}

_ONE = {
    "abs": "Abs", "asinh": "Asinh", "ceil": "Ceil", "cos": "Cos", "erf": "Erf", "exp": "Exp",
    "floor": "Floor", "isnan": "IsNaN", "log": "Log", "neg": "Neg", "reciprocal": "Reciprocal",
    "relu": "Relu", "round": "Round", "sigmoid": "Sigmoid", "sign": "Sign", "sin": "Sin",
    "sqrt": "Sqrt", "tanh": "Tanh", "det": "Det",
}  # fmt: skip
_TWO = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "maximum": "Max", "minimum": "Min",
    "pow": "Pow", "eq": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater",
    "ge": "GreaterOrEqual", "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
}  # fmt: skip
_ON_BOOL = {
    "add": "Or", "maximum": "Or", "mul": "And", "minimum": "And", "bitwise_and": "And",
    "bitwise_or": "Or", "bitwise_xor": "Xor",
}  # fmt: skip


def primitive(*names: str) -> Callable[[Write], Write]:
    """Enter a function in the table."""

    def enter(function: Write) -> Write:
        for name in names:
            PRIMITIVES[name] = function
        return function

    return enter


@primitive(*_ONE)
def _one(w: Writer, n: Node) -> Any:
    return w.add(_ONE[n.op.name], n.inputs[0])


@primitive(*_TWO)
def _two(w: Writer, n: Node) -> Any:
    name, on_bool = n.op.name, n.inputs[0].dtype is T.bool_
    if on_bool and name in ("lt", "le", "gt", "ge"):
        wide = [_cast(w, x, T.int32) for x in n.inputs]
        return w.add(_TWO[name], *wide)
    return w.add(_ON_BOOL.get(name, _TWO[name]) if on_bool else _TWO[name], *n.inputs)


def _cast(w: Writer, value: str | Node, dtype: T.DType) -> str:
    return str(w.add("Cast", value, to=number_of_dtype(dtype)))


def _truth(w: Writer, x: Node) -> str | Node:
    return x if x.dtype is T.bool_ else _cast(w, x, T.bool_)


@primitive("logical_and", "logical_or", "logical_xor")
def _logic(w: Writer, n: Node) -> Any:
    name = {"logical_and": "And", "logical_or": "Or", "logical_xor": "Xor"}[n.op.name]
    return w.add(name, *[_truth(w, x) for x in n.inputs])


@primitive("logical_not")
def _not(w: Writer, n: Node) -> Any:
    return w.add("Not", _truth(w, n.inputs[0]))


@primitive("ne")
def _ne(w: Writer, n: Node) -> Any:
    return w.add("Not", w.add("Equal", *n.inputs))


@primitive("cast")
def _to(w: Writer, n: Node) -> Any:
    return _cast(w, n.inputs[0], n.dtype)


@primitive("copy", "stop_gradient", "after")
def _same(w: Writer, n: Node) -> Any:
    return w.name(n.inputs[0])


@primitive("where")
def _where(w: Writer, n: Node) -> Any:
    if n.dtype is T.bool_:
        condition, one, other = n.inputs
        kept = w.add("And", w.add("Not", condition), other)
        return w.add("Or", w.add("And", condition, one), kept)
    return w.add("Where", *n.inputs)


@primitive("rsqrt")
def _rsqrt(w: Writer, n: Node) -> Any:
    return w.add("Reciprocal", w.add("Sqrt", n.inputs[0]))


@primitive("expm1")
def _expm1(w: Writer, n: Node) -> Any:
    return w.add("Sub", w.add("Exp", n.inputs[0]), w.like(1, n))


@primitive("phi")
def _phi(w: Writer, n: Node) -> Any:
    scaled = w.add("Mul", n.inputs[0], w.like(math.sqrt(0.5), n))
    return w.add("Mul", w.add("Add", w.add("Erf", scaled), w.like(1, n)), w.like(0.5, n))


@primitive("log1p")
def _log1p(w: Writer, n: Node) -> Any:
    return w.add("Log", w.add("Add", n.inputs[0], w.like(1, n)))


@primitive("exp2")
def _exp2(w: Writer, n: Node) -> Any:
    return w.add("Pow", w.like(2, n), n.inputs[0])


@primitive("log2", "log10")
def _log_to_base(w: Writer, n: Node) -> Any:
    base = math.log(2) if n.op.name == "log2" else math.log(10)
    return w.add("Div", w.add("Log", n.inputs[0]), w.like(base, n))


@primitive("erfc")
def _erfc(w: Writer, n: Node) -> Any:
    return w.add("Sub", w.like(1, n), w.add("Erf", n.inputs[0]))


@primitive("trunc")
def _trunc(w: Writer, n: Node) -> Any:
    size = w.add("Floor", w.add("Abs", n.inputs[0]))
    return w.add("Mul", w.add("Sign", n.inputs[0]), size)


@primitive("hypot")
def _hypot(w: Writer, n: Node) -> Any:
    squares = [w.add("Mul", x, x) for x in n.inputs]
    return w.add("Sqrt", w.add("Add", *squares))


@primitive("floor_divide")
def _floor_divide(w: Writer, n: Node) -> Any:
    a, b = n.inputs
    if n.dtype.is_floating_point:
        return w.add("Floor", w.add("Div", a, b))
    return w.add("Div", w.add("Sub", a, w.add("Mod", a, b)), b)


@primitive("remainder")
def _remainder(w: Writer, n: Node) -> Any:
    a, b = n.inputs
    if not n.dtype.is_floating_point:
        return w.add("Mod", a, b)
    return w.add("Sub", a, w.add("Mul", w.add("Floor", w.add("Div", a, b)), b))


@primitive("fmod")
def _fmod(w: Writer, n: Node) -> Any:
    return w.add("Mod", *n.inputs, fmod=1)


# ---- leaves ---------------------------------------------------------------------------


@primitive("constant")
def _constant(w: Writer, n: Node) -> Any:
    return w.constant(n.attrs["value"].array)


@primitive("extent")
def _extent(w: Writer, n: Node) -> Any:
    scalar = w.add("Squeeze", w.size(n.attrs["dim"]), w.ints([0]))
    return scalar if n.dtype is T.int64 else _cast(w, scalar, n.dtype)


@primitive("iota")
def _iota(w: Writer, n: Node) -> Any:
    axis, extent = n.attrs["axis"], n.shape[n.attrs["axis"]]
    column = [1] * len(n.shape)
    if isinstance(extent, int):
        column[axis] = extent
        line: str = w.constant(np.arange(extent).reshape(column).astype(n.dtype.numpy))
    else:
        limit = w.add("Squeeze", w.size(extent), w.ints([0]))
        made = w.add("Range", w.constant(np.int64(0)), limit, w.constant(np.int64(1)))
        column[axis] = -1
        line = w.add("Reshape", _cast(w, made, n.dtype), w.ints(column))
    return line if len(n.shape) == 1 else w.add("Expand", line, w.shape(n.shape))


# ---- reductions -----------------------------------------------------------------------

_REDUCE = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
           "reduce_prod": "ReduceProd"}  # fmt: skip


@primitive(*_REDUCE)
def _reduce(w: Writer, n: Node) -> Any:
    axes = n.attrs["axes"]
    if not axes:
        return w.name(n.inputs[0])
    x: str | Node = n.inputs[0]
    on_bool = n.inputs[0].dtype is T.bool_
    if on_bool:
        x = _cast(w, x, T.int32)
    found = reduced(w, _REDUCE[n.op.name], x, axes, 0)
    return _cast(w, found, n.dtype) if on_bool else found


def reduced(w: Writer, name: str, x: str | Node, axes: Sequence[int], keepdims: int) -> str:
    """A reduction: its axes are an operand since version 18 (of sums since 13)."""
    if w.opset >= 18 or name == "ReduceSum":
        return str(w.add(name, x, w.ints(axes), keepdims=keepdims))
    return str(w.add(name, x, axes=list(axes), keepdims=keepdims))


@primitive("argmax", "argmin")
def _arg(w: Writer, n: Node) -> Any:
    name = "ArgMax" if n.op.name == "argmax" else "ArgMin"
    return w.add(name, n.inputs[0], axis=n.attrs["axis"], keepdims=0)


@primitive("softmax")
def _softmax(w: Writer, n: Node) -> Any:
    found = w.add("Softmax", n.inputs[0], axis=n.attrs["axis"])
    if not n.attrs["or_zero"]:
        return found
    return w.add("Where", w.add("IsNaN", found), w.like(0, n), found)


@primitive("standardise")
def _standardise(w: Writer, n: Node) -> Any:
    x, axes = n.inputs[0], n.attrs["axes"]
    centred = w.add("Sub", x, reduced(w, "ReduceMean", x, axes, 1))
    variance = reduced(w, "ReduceMean", w.add("Mul", centred, centred), axes, 1)
    return w.add("Div", centred, w.add("Sqrt", w.add("Add", variance, w.like(n.attrs["eps"], n))))


@primitive("cumsum")
def _cumsum(w: Writer, n: Node) -> Any:
    axis = w.constant(np.int64(n.attrs["axis"]))
    return w.add("CumSum", n.inputs[0], axis, reverse=int(n.attrs["reverse"]))


@primitive("argsort")
def _argsort(w: Writer, n: Node) -> Any:
    axis = n.attrs["axis"]
    count = w.size(n.shape[axis])
    largest = int(n.attrs["descending"])
    return w.add("TopK", n.inputs[0], count, outputs=2, axis=axis, largest=largest)[1]


# ---- shapes ---------------------------------------------------------------------------


@primitive("reshape")
def _reshape(w: Writer, n: Node) -> Any:
    return w.reshape(n.inputs[0], n.shape)


@primitive("expand")
def _expand(w: Writer, n: Node) -> Any:
    return w.add("Expand", n.inputs[0], w.shape(n.shape))


@primitive("permute")
def _permute(w: Writer, n: Node) -> Any:
    return w.add("Transpose", n.inputs[0], perm=list(n.attrs["axes"]))


@primitive("concatenate")
def _concatenate(w: Writer, n: Node) -> Any:
    if len(n.inputs) == 1:
        return w.name(n.inputs[0])
    return w.add("Concat", *n.inputs, axis=n.attrs["axis"])


@primitive("slice")
def _slice(w: Writer, n: Node) -> Any:
    x = n.inputs[0]
    parts = zip(x.shape, n.attrs["starts"], n.attrs["limits"], n.attrs["steps"])
    rows = [
        (axis, start, END if limit == extent else limit, step)
        for axis, (extent, start, limit, step) in enumerate(parts)
        if start != 0 or limit != extent or step != 1
    ]
    if not rows:
        return w.name(x)
    axes, starts, limits, steps = (list(column) for column in zip(*rows))
    return w.add("Slice", x, w.shape(starts), w.shape(limits), w.ints(axes), w.ints(steps))


@primitive("flip")
def _flip(w: Writer, n: Node) -> Any:
    axes = n.attrs["axes"]
    count = len(axes)
    ends = w.ints([-END] * count)
    return w.add("Slice", n.inputs[0], w.ints([-1] * count), ends, w.ints(axes),
                 w.ints([-1] * count))  # fmt: skip


@primitive("pad")
def _pad(w: Writer, n: Node) -> Any:
    value = w.like(n.attrs["value"], n)
    return w.add("Pad", n.inputs[0], w.shape((*n.attrs["low"], *n.attrs["high"])), value)


@primitive("take")
def _take(w: Writer, n: Node) -> Any:
    return w.add("Gather", *n.inputs, axis=n.attrs["axis"])


@primitive("gather")
def _gather(w: Writer, n: Node) -> Any:
    return w.add("GatherElements", *n.inputs, axis=n.attrs["axis"])


_SCATTER = {"scatter": "none", "scatter_add": "add", "scatter_mul": "mul", "scatter_max": "max",
            "scatter_min": "min"}  # fmt: skip


@primitive(*_SCATTER)
def _scatter(w: Writer, n: Node) -> Any:
    reduction = _SCATTER[n.op.name]
    return w.add("ScatterElements", *n.inputs, axis=n.attrs["axis"], reduction=reduction)


@primitive("window")
def _window(w: Writer, n: Node) -> Any:
    """Windows are read by tables of positions, an axis after another."""
    x, rank = w.name(n.inputs[0]), len(n.inputs[0].shape)
    keys = ("axes", "sizes", "steps", "dilations")
    for k, (axis, size, step, dilation) in enumerate(zip(*(n.attrs[key] for key in keys))):
        count = n.shape[axis]
        if isinstance(count, SymDim):
            raise GraphError("windows over a symbolic dimension cannot be exported")
        table = np.arange(count)[:, None] * step + np.arange(size) * dilation
        x = w.add("Gather", x, w.constant(table.astype(np.int64)), axis=axis)
        order = [a for a in range(rank + k + 1) if a != axis + 1] + [axis + 1]
        x = w.add("Transpose", x, perm=order)
    return x


# ---- products -------------------------------------------------------------------------


def _sums(w: Writer, n: Node, name: str, *operands: str | Node, **attributes: Any) -> str:
    """Sums of products, of the dtype of ``n``.

    Operators multiply no integers of 8 or 16 bits.  There are MatMulInteger and ConvInteger for
    8, with sums of 32; else they are widened before.  Sums that are to wrap around are cut off
    afterwards, which is the same.
    """
    own, taken = n.inputs[0].dtype, operands
    if own in (T.int8, T.uint8) and name != "Einsum":
        name, own = f"{name}Integer", T.int32
    elif own in (T.int8, T.uint8, T.int16):
        taken, own = tuple(_cast(w, x, T.int32) for x in operands), T.int32
    made = str(w.add(name, *taken, **attributes))
    return made if own is n.dtype else _cast(w, made, n.dtype)


@primitive("matmul")
def _matmul(w: Writer, n: Node) -> Any:
    return _sums(w, n, "MatMul", *n.inputs)


@primitive("contract")
def _contract(w: Writer, n: Node) -> Any:
    spelled = ["".join(chr(97 + k) for k in n.attrs[side]) for side in ("left", "right", "out")]
    return _sums(w, n, "Einsum", *n.inputs, equation=f"{spelled[0]},{spelled[1]}->{spelled[2]}")


@primitive("conv")
def _conv(w: Writer, n: Node) -> Any:
    x, kernel = n.inputs
    if any(s != 1 for s in n.attrs["spread"]):
        raise GraphError("a transposed convolution that no function made cannot be exported")
    groups, features, channels = kernel.shape[:3]
    low, high = n.attrs["low"], n.attrs["high"]
    data = w.reshape(x, (x.shape[0], groups * channels, *x.shape[3:]))
    if any(p < 0 for p in (*low, *high)):
        data = w.add("Pad", data, w.ints([0, 0, *low, 0, 0, *high]))
        low = high = (0,) * len(low)
    made = _sums(
        w, n, "Conv", data, w.reshape(kernel, (groups * features, channels, *kernel.shape[3:])),
        strides=list(n.attrs["steps"]), pads=[*low, *high], group=groups,
        dilations=list(n.attrs["dilations"]),
    )  # fmt: skip
    return w.reshape(made, n.shape)
