"""Writing at computed positions: ``scatter``, ``index_add``, ``masked_fill``, ``put`` …

All of them leave their input as it is and give a new tensor; the forms with an
underscore write.  Among several elements for one place the last one stays, or they
are folded in their order, on any number of threads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphflow.autocasting import in_widest
from graphflow.checks import need_index, need_tensor
from graphflow.device import beside_operands
from graphflow.dispatch import apply
from graphflow.dispatch import full as filled
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.picking import along_axis, from_the_front, vector_of
from graphflow.functions.reductions import normal_dim
from graphflow.functions.shaping import expand, narrow, reshape, unsqueeze
from graphflow.ir import types as T
from graphflow.ir.ops.reduce import highest, lowest
from graphflow.ir.types import DType, broadcast_shapes
from graphflow.mode import mode
from graphflow.promotion import as_operand, cast, is_one, number_dtype
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "diagonal_scatter", "fill", "index_add", "index_copy", "index_fill", "index_reduce",
    "masked_fill", "masked_scatter", "put", "scatter", "scatter_add", "scatter_reduce",
    "select_scatter", "slice_scatter",
]  # fmt: skip
METHODS = tuple(name for name in __all__ if name != "fill")
IN_PLACE = """
index_add index_copy index_fill index_reduce masked_fill masked_scatter put scatter scatter_add
scatter_reduce
""".split()

# ---- along an axis -------------------------------------------------------------------


def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """``out[index[i][j]][j] = src[i][j]`` for ``dim`` 0, and so on; ``src`` may be a number.

    ``reduce``: ``"add"`` or ``"multiply"`` instead of replacing.
    """
    ops = {None: "scatter", "add": "scatter_add", "multiply": "scatter_mul"}
    if reduce not in ops:
        raise ValueError(f"scatter: reduce must be 'add' or 'multiply', not {reduce!r}")
    source = value if src is None else src
    if not isinstance(source, Tensor) or source._weak:
        need_index("scatter", need_tensor("scatter", index, "index"))
        if isinstance(source, Tensor):  # a run-time number
            zeros = filled(tuple(index.shape), 0, input.dtype)
            source = apply("add", zeros, cast(source, input.dtype))
        else:
            source = filled(tuple(index.shape), source, input.dtype)
    return scattered("scatter", ops[reduce], input, dim, index, source)


@in_widest
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``out[index[i][j]][j] += src[i][j]`` for ``dim`` 0, and so on."""
    return scattered("scatter_add", "scatter_add", input, dim, index, src)


def scatter_reduce(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Tensor:
    """What arrives at each place folded: ``sum``, ``prod``, ``mean``, ``amax`` or ``amin``.

    ``include_self``: with what was there; otherwise without, where anything arrives.
    """

    def at(op: str, base: Tensor, source: Tensor) -> Tensor:
        return scattered("scatter_reduce", op, base, dim, index, source)

    return _reduced("scatter_reduce", input, src, tuple(index.shape), reduce, include_self, at)


def scattered(name: str, op: str, input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """``op`` on as much of ``input`` and ``source`` as the index covers."""
    axis = normal_dim(dim, need_tensor(name, input).ndim)
    _same_dtype(name, input, need_tensor(name, source, "src"))
    if need_tensor(name, index, "index").numel() == 0:
        need_index(name, index)
        return apply("copy", input)
    part, places = along_axis(name, input, index, axis)
    piece = source if source.ndim else reshape(source, 1)
    if piece.ndim != places.ndim or any(d > e for d, e in zip(places.shape, piece.shape)):
        raise ShapeError(
            f"{name}: the index of shape {list(index.shape)} is larger than the source of shape "
            f"{list(source.shape)}"
        )
    for d, extent in enumerate(places.shape):
        if piece.shape[d] != extent:
            piece = narrow(piece, d, 0, extent)
    out = apply(op, part, places, piece, axis=axis)
    if out.shape == input.shape:
        return out
    if not input.ndim:
        return reshape(out, ())
    return apply("slice_update", input, out, starts=(0,) * out.ndim, steps=(1,) * out.ndim)


def _same_dtype(name: str, input: Tensor, source: Tensor) -> None:
    if input.dtype is not source.dtype:
        raise DTypeError(
            f"{name}: input and source must have one dtype, not {input.dtype.name} and "
            f"{source.dtype.name}; convert one, for example with .to({input.dtype!r})"
        )


_FOLDS: dict[str, tuple[str, Callable[[DType], Any]]] = {
    "sum": ("scatter_add", lambda dtype: 0),
    "mean": ("scatter_add", lambda dtype: 0),
    "prod": ("scatter_mul", lambda dtype: 1),
    "amax": ("scatter_max", lowest),
    "amin": ("scatter_min", highest),
}


@beside_operands
def _reduced(
    name: str,
    input: Tensor,
    source: Tensor,
    shape: tuple[int, ...],
    reduce: str,
    include_self: bool,
    at: Callable[[str, Tensor, Tensor], Tensor],
) -> Tensor:
    """``at(op, base, source)`` writes elements of ``shape``; here the kinds of folds."""
    if reduce not in _FOLDS or (name == "index_reduce" and reduce == "sum"):
        raise ValueError(
            f"{name}: reduce must be one of {', '.join(_FOLDS)} (no sum for index_reduce), "
            f"not {reduce!r}"
        )
    op, identity = _FOLDS[reduce]
    dtype = input.dtype
    base = input
    if not include_self:
        base = at("scatter", input, filled(shape, identity(dtype), dtype))
    out = at(op, base, source)
    if reduce != "mean":
        return out
    start = filled(tuple(input.shape), int(include_self), dtype)
    count = at("scatter_add", start, filled(shape, 1, dtype))
    count = apply("maximum", count, as_operand(1, dtype))
    return apply("div" if dtype.is_floating_point else "floor_divide", out, count)


# ---- by a vector of positions --------------------------------------------------------


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """Entry ``i`` of ``source`` added to entry ``index[i]`` of dimension ``dim``."""
    axis, places = _entries("index_add", input, dim, index, source)
    if not is_one(alpha):
        source = apply("mul", source, as_operand(alpha, source.dtype))
    return _at("scatter_add", input, axis, places, source)


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Entry ``index[i]`` of dimension ``dim`` replaced by entry ``i`` of ``source``."""
    axis, places = _entries("index_copy", input, dim, index, source)
    return _at("scatter", input, axis, places, source)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """The entries ``index`` of dimension ``dim`` set to ``value``, a number or 0-d tensor."""
    axis = normal_dim(dim, need_tensor("index_fill", input).ndim)
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError(f"index_fill: the value must have no dimensions, not {value.ndim}")
    extent = input.shape[axis] if input.ndim else 1
    places = from_the_front(vector_of("index_fill", index), extent)
    shape = list(input.shape) or [1]
    shape[axis] = places.shape[0]
    return _at("scatter", input, axis, places, expand(as_operand(value, input.dtype), shape))


def index_reduce(
    input: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Tensor:
    """Entry ``i`` of ``source`` folded into entry ``index[i]`` of dimension ``dim``.

    ``reduce``: ``prod``, ``mean``, ``amax`` or ``amin``.
    """
    axis, places = _entries("index_reduce", input, dim, index, source)

    def at(op: str, base: Tensor, part: Tensor) -> Tensor:
        return _at(op, base, axis, places, part)

    shape = tuple(source.shape)
    return _reduced("index_reduce", input, source, shape, reduce, include_self, at)


def _entries(
    name: str, input: Tensor, dim: int, index: Tensor, source: Tensor
) -> tuple[int, Tensor]:
    """The axis and the positions; ``source`` has the input's shape apart from the axis."""
    axis = normal_dim(dim, need_tensor(name, input).ndim)
    places = vector_of(name, index)
    _same_dtype(name, input, need_tensor(name, source, "source"))
    wanted = list(input.shape) or [1]
    wanted[axis] = places.shape[0]
    if (list(source.shape) or [1]) != wanted:
        raise ShapeError(
            f"{name}: the source must have shape {wanted}, as the input of shape "
            f"{list(input.shape)} and an index of {places.shape[0]} say, not {list(source.shape)}"
        )
    return axis, places


def _at(op: str, input: Tensor, axis: int, places: Tensor, source: Tensor) -> Tensor:
    """``op`` of whole entries of ``axis``."""
    base = input if input.ndim else reshape(input, 1)
    part = source if source.ndim else reshape(source, 1)
    column = tuple(places.shape[0] if k == axis else 1 for k in range(base.ndim))
    index = expand(reshape(places, column), tuple(part.shape))
    out = apply(op, base, index, part, axis=axis)
    return out if input.ndim else reshape(out, ())


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Elements of ``source`` put at positions ``index`` of the input as one dimension.

    ``accumulate``: added.  Negative positions count from the end.
    """
    need_index("put", need_tensor("put", index, "index"))
    _same_dtype("put", input, need_tensor("put", source, "source"))
    if index.numel() != source.numel():
        raise ShapeError(
            f"put: index and source must have as many elements, not {index.numel()} and "
            f"{source.numel()}"
        )
    places = from_the_front(reshape(index, -1), input.numel())
    op = "scatter_add" if accumulate else "scatter"
    out = apply(op, reshape(input, -1), places, reshape(source, -1), axis=0)
    return reshape(out, tuple(input.shape))


# ---- by a mask -----------------------------------------------------------------------


def fill(input: Tensor, value: Any) -> Tensor:
    """``value`` everywhere, in the shape and dtype of the input."""
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError(f"fill: the value must have no dimensions, not {value.ndim}")
    return apply("where", as_operand(True, T.bool_), as_operand(value, input.dtype), input)


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """``value``, a number or 0-d tensor, where ``mask`` holds, else ``input``."""
    _need_mask("masked_fill", mask)
    if isinstance(value, Tensor) and value.ndim:
        raise ShapeError(
            f"masked_fill: the value must be a number or have no dimensions, not {value.ndim}"
        )
    if (value.dtype if isinstance(value, Tensor) else number_dtype(value)).is_complex:
        if not input.dtype.is_complex:
            raise DTypeError(f"masked_fill: a complex value does not fit {input.dtype.name}")
    return apply("where", mask, as_operand(value, input.dtype), input)


def _need_mask(name: str, mask: Any) -> None:
    if need_tensor(name, mask, "mask").dtype is not T.bool_:
        raise DTypeError(f"{name}: the mask must be bool, not {mask.dtype.name}")


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The elements of ``source``, in order, at the places where ``mask`` holds.

    The source may have more elements than the mask has places, not fewer.
    """
    _need_mask("masked_scatter", mask)
    _same_dtype("masked_scatter", input, need_tensor("masked_scatter", source, "source"))
    shape: Any = broadcast_shapes(tuple(input.shape), tuple(mask.shape))
    base, places = expand(input, shape), reshape(expand(mask, shape), -1)
    flat = reshape(source, -1)
    if mode.tracer is None and int(places._host().sum()) > flat.shape[0]:
        raise ShapeError(
            f"masked_scatter: the mask holds at {int(places._host().sum())} places, the source "
            f"has {flat.shape[0]} elements"
        )
    if 0 in (flat.shape[0], places.shape[0]):
        return apply("copy", base)
    number = apply("cumsum", cast(places, T.int64), axis=0, reverse=False)
    at = apply(
        "where", places, apply("sub", number, as_operand(1, T.int64)), as_operand(0, T.int64)
    )
    chosen = reshape(apply("take", flat, at, axis=0), shape)
    return apply("where", mask, chosen, base)


# ---- a part of a tensor --------------------------------------------------------------


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """``input`` with entry ``index`` of dimension ``dim`` replaced by ``src``."""
    if not input.ndim:
        raise IndexError("select_scatter cannot be applied to a 0-dim tensor")
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis]
    if not -extent <= index < extent:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {extent}")
    wanted = (*input.shape[:axis], *input.shape[axis + 1 :])
    _fits("select_scatter", src, wanted)
    return _part(input, unsqueeze(src, axis), axis, index % extent, 1)


def slice_scatter(
    input: Tensor,
    src: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """``input`` with the entries ``start:end:step`` of dimension ``dim`` replaced by ``src``."""
    axis = normal_dim(dim, input.ndim)
    if step <= 0:
        raise ValueError(f"slice_scatter: the step must be positive, not {step}")
    first, last, _ = slice(start, end, step).indices(input.shape[axis])
    count = len(range(first, last, step))
    _fits("slice_scatter", src, (*input.shape[:axis], count, *input.shape[axis + 1 :]))
    return _part(input, src, axis, first if count else 0, step)


def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """``input`` with a diagonal replaced by ``src``."""
    from graphflow.functions.diagonals import diagonal

    axes = (normal_dim(dim1, input.ndim), normal_dim(dim2, input.ndim))
    _fits("diagonal_scatter", src, tuple(diagonal(input, offset, dim1, dim2).shape))
    return apply("diagonal_set", input, cast(src, input.dtype), axes=axes, offset=offset)


def _fits(name: str, src: Tensor, wanted: tuple[int, ...]) -> None:
    if tuple(need_tensor(name, src, "src").shape) != wanted:
        raise ShapeError(f"{name}: src must have shape {list(wanted)}, not {list(src.shape)}")


def _part(input: Tensor, src: Tensor, axis: int, start: int, step: int) -> Tensor:
    starts = tuple(start if k == axis else 0 for k in range(input.ndim))
    steps = tuple(step if k == axis else 1 for k in range(input.ndim))
    return apply("slice_update", input, cast(src, input.dtype), starts=starts, steps=steps)
