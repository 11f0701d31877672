"""Tensors made from positions alone: ``iota``, sizes, counter-based random bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, GraphError
from graphflow.ir.affine import Affine, Index, Piece
from graphflow.ir.dims import SymDim
from graphflow.ir.op import (
    NON_DIFFERENTIABLE,
    POSITION,
    Array,
    Kind,
    OpDef,
    OpTests,
    Sample,
    register,
)
from graphflow.ir.ops import batches
from graphflow.ir.ops.rules import (
    NUMERIC,
    Attrs,
    check_arity,
    check_axis,
    spelled,
    unsupported,
    wanted_shape,
)
from graphflow.ir.types import DType, TensorType, dtype_named, int64, uint32

Types = Sequence[TensorType]

# ---- iota ----------------------------------------------------------------------------


def _infer_iota(types: Types, attrs: Attrs) -> TensorType:
    check_arity("iota", types, 0)
    shape = wanted_shape("iota", types, attrs)
    check_axis("iota", types, attrs.get("axis"), len(shape))
    dtype = attrs.get("dtype")
    if not isinstance(dtype, DType):
        raise DTypeError(f"iota(): dtype must be a dtype, not {dtype!r}")
    if dtype.kind not in NUMERIC:
        raise unsupported("iota", [TensorType(dtype, shape)], NUMERIC)
    return TensorType(dtype, shape)


def _iota(*, shape: tuple[int, ...], axis: int, dtype: DType) -> Array:
    places = np.arange(shape[axis]).astype(dtype.numpy)
    places = places.reshape((-1,) + (1,) * (len(shape) - 1 - axis))
    out = np.empty(shape, dtype.numpy)
    out[...] = places
    return out


def _index_iota(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    return (Piece(POSITION, (index[attrs["axis"]],)),)


IOTA = register(
    OpDef(
        name="iota",
        kind=Kind.GENERATOR,
        summary="The position along an axis: 0, 1, 2, …",
        infer=_infer_iota,
        reference=_iota,
        vjp=NON_DIFFERENTIABLE,
        scalar="{dtype.short}({0})",
        index=_index_iota,
        tests=OpTests(
            dtypes=("f32",),
            samples=tuple(
                Sample((), {"shape": shape, "axis": axis, "dtype": dtype_named(dtype)})
                for shape, axis in (((5,), 0), ((2, 3), 0), ((2, 3), 1), ((0, 3), 1))
                for dtype in ("f32", "f64", "i64", "i32")
            ),
            gradient=False,
        ),
    )
)

# ---- extent --------------------------------------------------------------------------


def _infer_extent(types: Types, attrs: Attrs) -> TensorType:
    check_arity("extent", types, 0)
    dim, dtype = attrs.get("dim"), attrs.get("dtype")
    if not isinstance(dim, (int, SymDim)) or isinstance(dim, bool):
        raise GraphError(f"extent(): dim must be a dimension, not {dim!r}")
    if not isinstance(dtype, DType):
        raise DTypeError(f"extent(): dtype must be a dtype, not {dtype!r}")
    if dtype.kind not in NUMERIC:
        raise unsupported("extent", [TensorType(dtype, ())], NUMERIC)
    return TensorType(dtype, ())


def _extent(*, dim: int, dtype: DType) -> Array:
    return np.array(dim).astype(dtype.numpy)


def _index_extent(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    return (Piece(POSITION, (Affine((), attrs["dim"]),)),)


EXTENT = register(
    OpDef(
        name="extent",
        kind=Kind.GENERATOR,
        summary="The size of a dimension, as a number.",
        infer=_infer_extent,
        reference=_extent,
        vjp=NON_DIFFERENTIABLE,
        scalar="{dtype.short}({0})",
        index=_index_extent,
        tests=OpTests(
            dtypes=("f32",),
            samples=tuple(
                Sample((), {"dim": dim, "dtype": dtype_named(dtype)})
                for dim in (0, 1, 100)
                for dtype in ("f32", "f64", "i64", "i32")
            ),
            gradient=False,
        ),
    )
)

# ---- random bits ---------------------------------------------------------------------

ROUNDS = 10
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_BLOCK = 8192


def philox(seed: int, call: int, index: Array, word: int) -> Array:
    """Word ``word`` (0 to 3) of Philox4x32-10 at every element of ``index`` (uint64, one axis).

    The counter is (index low, index high, call low, call high), the key (seed
    low, seed high).  Source: Salmon et al., "Parallel random numbers: as easy
    as 1, 2, 3", SC 2011.
    """
    out = np.empty(index.shape, np.uint32)
    keys = [
        tuple(np.uint64((part + i * weyl) & 0xFFFFFFFF) for part, weyl in zip(_halves(seed), _WEYL))
        for i in range(ROUNDS)
    ]
    for begin in range(0, len(index), _BLOCK):  # a block stays in the cache for all rounds
        block = slice(begin, begin + _BLOCK)
        out[block] = _rounds(index[block], call, keys)[word]
    return out


def _halves(number: int) -> tuple[int, int]:
    return number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF


def _rounds(index: Array, call: int, keys: Sequence[tuple[Any, ...]]) -> tuple[Array, ...]:
    """The four words of every element, 32 bits each in uint64."""
    x0, x1 = index & _LOW, index >> _HALF
    x2, x3 = (np.full_like(x0, half) for half in _halves(call))
    p0, p1 = np.empty_like(x0), np.empty_like(x0)
    for k0, k1 in keys:
        np.multiply(x0, _MULTIPLIERS[0], out=p0)
        np.multiply(x2, _MULTIPLIERS[1], out=p1)
        np.right_shift(p1, _HALF, out=x0)
        x0 ^= x1
        x0 ^= k0
        np.bitwise_and(p1, _LOW, out=x1)
        np.right_shift(p0, _HALF, out=x2)
        x2 ^= x3
        x2 ^= k1
        np.bitwise_and(p0, _LOW, out=x3)
    return x0, x1, x2, x3


def _infer_random_bits(types: Types, attrs: Attrs) -> TensorType:
    check_arity("random_bits", types, 1)
    if types[0] != TensorType(int64, (2,)):
        raise DTypeError(f"{spelled('random_bits', types)}: the key is i64[2], (seed, call number)")
    call, word = attrs.get("call"), attrs.get("word")
    if not isinstance(call, int) or not isinstance(word, int) or not 0 <= word < 4:
        raise GraphError(
            f"{spelled('random_bits', types)}: call must be an integer and word 0 to 3, "
            f"not {call!r} and {word!r}"
        )
    return TensorType(uint32, wanted_shape("random_bits", types, attrs))


def _random_bits(key: Array, *, shape: tuple[int, ...], call: int, word: int) -> Array:
    seed, base = key.tolist()
    count = int(np.prod(shape, dtype=np.int64))
    bits = philox(seed, base + call, np.arange(count, dtype=np.uint64), word)
    return bits.reshape(shape)


def _index_random_bits(types: Types, attrs: Attrs, index: Index) -> Sequence[Piece]:
    """The seed, the base call number, the call, and the row-major number of the element.

    The call is a position and not a part of the template, so that all calls are one kernel.
    """
    flat, stride = Affine(), 1
    for part, extent in zip(reversed(index), reversed(attrs["shape"])):
        flat, stride = flat + part * stride, stride * extent
    call = Affine((), attrs["call"])
    key = Piece(0, (Affine(),)), Piece(0, (Affine((), 1),))
    return (*key, Piece(POSITION, (call,)), Piece(POSITION, (flat,)))


def _keys() -> Sequence[Any]:
    return [np.array(key, np.int64) for key in ((0, 0), (1234, 5), (-(2**62) + 7, 2**33))]


RANDOM_BITS = register(
    OpDef(
        name="random_bits",
        kind=Kind.GENERATOR,
        summary="Random u32 from the key (seed, base call number), the call and the element.",
        infer=_infer_random_bits,
        reference=_random_bits,
        vjp=NON_DIFFERENTIABLE,
        scalar="vm.philox({0}, {1} + {2}, {3}, {word})",
        index=_index_random_bits,
        cost=60.0,
        batched=batches.drawn,
        draws=True,
        tests=OpTests(
            dtypes=("f32",),
            samples=tuple(
                Sample((key,), {"shape": shape, "call": call, "word": word})
                for key, call in zip(_keys(), (0, 1, 7))
                for shape in ((), (5,), (2, 3), (0, 3))
                for word in (0, 3)
            ),
            gradient=False,
        ),
    )
)
