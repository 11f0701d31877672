"""Views and joins: ``reshape``, ``permute``, ``cat``, ``split`` …

Views share memory with their source, as in PyTorch; joins copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphflow.checks import need_index, need_int, need_tensor, need_tensors
from graphflow.dispatch import apply, apply_view
from graphflow.errors import ShapeError
from graphflow.functions.reductions import normal_dim
from graphflow.ir import types as T
from graphflow.ir.dims import SymDim
from graphflow.mode import mode
from graphflow.promotion import cast, result_type

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "bmm", "broadcast_to", "cat", "chunk", "concat", "concatenate", "dot", "flatten", "flip",
    "gather", "index_select", "matmul", "mm", "moveaxis", "movedim", "mv", "narrow", "permute",
    "reshape", "scatter_add", "select", "split", "squeeze", "stack", "swapaxes", "swapdims",
    "t", "transpose", "unbind", "unflatten", "unsqueeze",
]  # fmt: skip
METHODS = """
bmm broadcast_to chunk dot expand expand_as flatten flip gather index_select matmul mm movedim mv
narrow permute reshape scatter_add select split squeeze swapaxes t transpose unbind unflatten
unsqueeze view
""".split()
IN_PLACE = """
scatter_add
""".split()


def _extents(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return tuple(
        d if type(d) is int or isinstance(d, SymDim) else need_int("a size", d) for d in shape
    )


def _infer(input: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Replace one -1 by what is left; check the number of elements."""
    total, known, wild = 1, 1, None
    for d in input.shape:
        total = total * d
    for i, d in enumerate(shape):
        if d == -1 and wild is None:
            wild = i
        else:
            known = known * d
    if wild is not None and isinstance(known, int) and known > 0 and isinstance(total, int):
        if total % known == 0:
            return (*shape[:wild], total // known, *shape[wild + 1 :])
    elif wild is None and known == total:
        return shape
    if shape.count(-1) > 1:
        raise ShapeError(f"only one extent can be -1 (worked out from the rest), got {list(shape)}")
    raise ShapeError(
        f"shape {list(shape)} is invalid for input of shape {list(input.shape)}: "
        "the number of elements must stay the same"
    )


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape: a view where memory allows, else a copy."""
    extents = _infer(input, _extents(shape))
    if extents == input.shape:
        return apply_view("reshape", input, shape=extents)
    if mode.tracer is not None or _viewable(input, extents):
        return apply_view("reshape", input, shape=extents)
    return apply_view("reshape", input.clone(), shape=extents)


def view(input: Tensor, *shape: Any) -> Tensor:
    """Like :func:`reshape`, but never copies: an error when memory does not allow it."""
    extents = _infer(input, _extents(shape))
    if mode.tracer is None and not _viewable(input, extents):
        raise ShapeError(
            f"view size {list(extents)} is not compatible with the strides of the input of shape "
            f"{list(input.shape)}; use reshape(), which copies where it must"
        )
    return apply_view("reshape", input, shape=extents)


def _viewable(input: Tensor, extents: tuple[int, ...]) -> bool:
    array = input._eager()
    if array.flags.c_contiguous:
        return True
    try:
        array.reshape(extents, copy=False)
    except ValueError:
        return False
    return True


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merge the dimensions from ``start_dim`` to ``end_dim``."""
    shape = input.shape
    if not shape:
        return reshape(input, 1)
    first, last = normal_dim(start_dim, len(shape)), normal_dim(end_dim, len(shape))
    if first > last:
        raise ShapeError("flatten: start_dim comes after end_dim")
    merged = 1
    for d in shape[first : last + 1]:
        merged = merged * d
    return reshape(input, (*shape[:first], merged, *shape[last + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Split dimension ``dim`` into ``sizes``."""
    axis = normal_dim(dim, input.ndim)
    part = _infer(_Extent(input.shape[axis]), tuple(sizes))  # type: ignore[arg-type]
    return reshape(input, (*input.shape[:axis], *part, *input.shape[axis + 1 :]))


class _Extent:
    """Just a shape, for checking the pieces of one dimension."""

    def __init__(self, extent: int) -> None:
        self.shape = (extent,)


def permute(input: Tensor, *dims: Any) -> Tensor:
    """Dimensions in another order: a view."""
    axes = tuple(normal_dim(d, input.ndim) for d in _extents(dims))
    if sorted(axes) != list(range(input.ndim)):
        raise ShapeError(
            f"permute{tuple(dims)} does not name every dimension of {list(input.shape)}"
        )
    return apply_view("permute", input, axes=axes)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two dimensions exchanged: a view."""
    a, b = normal_dim(dim0, input.ndim), normal_dim(dim1, input.ndim)
    axes = list(range(input.ndim))
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    return apply_view("permute", input, axes=tuple(axes))


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix (a vector or scalar as it is)."""
    if input.ndim > 2:
        raise ShapeError(f"t() expects a tensor with at most 2 dimensions, got {list(input.shape)}")
    return transpose(input, 0, 1) if input.ndim == 2 else input


def movedim(input: Tensor, source: int, destination: int) -> Tensor:
    """Move one dimension to another place: a view."""
    axes = [d for d in range(input.ndim) if d != normal_dim(source, input.ndim)]
    axes.insert(normal_dim(destination, input.ndim), normal_dim(source, input.ndim))
    return permute(input, axes)


def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without dimensions of extent 1 (all of them, or those in ``dim``): a view."""
    shape = input.shape
    given = range(len(shape)) if dim is None else (dim,) if isinstance(dim, int) else dim
    dropped = {normal_dim(d, len(shape)) for d in given}
    kept = tuple(d for i, d in enumerate(shape) if d != 1 or i not in dropped)
    return apply_view("reshape", input, shape=kept)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of extent 1 at ``dim``: a view."""
    axis = normal_dim(dim, input.ndim + 1)
    shape = input.shape
    return apply_view("reshape", input, shape=(*shape[:axis], 1, *shape[axis:]))


def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Repeat dimensions of extent 1 without copying (-1 keeps an extent): a view."""
    wanted = _extents(sizes)
    shape = input.shape
    lead = len(wanted) - len(shape)
    if lead < 0:
        raise ShapeError(f"expand to {list(wanted)} has fewer dimensions than {list(shape)}")
    out = tuple(
        (shape[i - lead] if i >= lead else d) if d == -1 else d for i, d in enumerate(wanted)
    )
    for i, d in enumerate(shape):
        if d != 1 and out[i + lead] != d:
            raise ShapeError(
                f"The expanded size ({out[i + lead]}) must match the existing size ({d}) at "
                f"dimension {i + lead}; shapes {list(shape)} → {list(wanted)}"
            )
    return apply_view("expand", input, shape=out)


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """Expanded to the shape of ``other``."""
    return expand(input, tuple(other.shape))


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """Expanded to ``size``."""
    return expand(input, tuple(size))


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Joined along an existing dimension."""
    tensors = need_tensors("cat", tensors)
    dtype = result_type(*tensors)
    parts = [cast(x, dtype) for x in tensors if x.shape != (0,)] or [cast(tensors[0], dtype)]
    return apply("concatenate", *parts, axis=normal_dim(dim, parts[0].ndim))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Joined along a new dimension."""
    tensors = need_tensors("stack", tensors)
    first = tensors[0].shape
    for x in tensors:
        if x.shape != first:
            raise ShapeError(f"stack needs equal shapes, got {list(first)} and {list(x.shape)}")
    return cat([unsqueeze(x, dim) for x in tensors], normal_dim(dim, len(first) + 1))


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """``length`` entries of dimension ``dim`` from ``start``: a view."""
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis]
    begin = start + extent if start < 0 else start
    if not (0 <= begin and begin + length <= extent and length >= 0):
        raise ShapeError(
            f"narrow: {start}+{length} does not fit dimension {dim} of extent {extent}"
        )
    return cut(input, axis, begin, begin + length, 1)


def cut(input: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    """Entries ``start, start+step, … < stop`` of one dimension: a view."""
    shape = input.shape
    starts = tuple(start if i == axis else 0 for i in range(len(shape)))
    limits = tuple(stop if i == axis else d for i, d in enumerate(shape))
    steps = tuple(step if i == axis else 1 for i in range(len(shape)))
    return apply_view("slice", input, starts=starts, limits=limits, steps=steps)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """Entry ``index`` of dimension ``dim``, which goes away: a view."""
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor")
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis]
    if not -extent <= index < extent:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {extent}")
    part = cut(input, axis, index % extent, index % extent + 1, 1)
    shape = input.shape
    return apply_view("reshape", part, shape=(*shape[:axis], *shape[axis + 1 :]))


def split(input: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Consecutive pieces of a size, or of the given sizes: views."""
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis]
    if isinstance(split_size, int):
        if split_size <= 0:
            raise ShapeError(f"split size must be positive, not {split_size}")
        whole, rest = divmod(extent, split_size)
        sizes = [split_size] * whole + ([rest] if rest or not extent else [])
    else:
        sizes = list(split_size)
        if _total(sizes) != extent:
            raise ShapeError(f"split sizes {sizes} do not add up to {extent}")
    pieces, start = [], 0
    for size in sizes:
        pieces.append(cut(input, axis, start, start + size, 1))
        start += size
    return tuple(pieces)


def _total(sizes: Sequence[int]) -> int:
    total = 0
    for size in sizes:
        total += size
    return total


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` pieces of equal size: views."""
    extent = input.shape[normal_dim(dim, input.ndim)]
    return split(input, max(1, -(-extent // chunks)), dim)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Every entry of a dimension: views."""
    return tuple(select(input, dim, i) for i in range(input.shape[normal_dim(dim, input.ndim)]))


def flip(input: Tensor, *dims: Any) -> Tensor:
    """Dimensions in reverse order (a copy)."""
    axes = tuple(sorted(normal_dim(d, input.ndim) for d in _extents(dims)))
    return apply("flip", input, axes=axes) if axes else input.clone()


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """``out[i][j] = input[index[i][j]][j]`` for ``dim`` 0, and so on."""
    _index_of("gather", input, index)
    axis = normal_dim(dim, input.ndim)
    source = input
    for d in range(input.ndim):
        if d != axis and index.shape[d] != source.shape[d]:
            source = narrow(source, d, 0, index.shape[d])
    return apply("gather", source, cast(index, T.int64), axis=axis)


def _index_of(name: str, input: Tensor, index: Any) -> None:
    need_index(name, need_tensor(name, index, "index"))
    if index.ndim != input.ndim:
        raise ShapeError(
            f"{name}: the index has {index.ndim} dimensions, the input {input.ndim}; "
            "they must have the same number"
        )


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The entries of dimension ``dim`` that the 1-d ``index`` names."""
    need_index("index_select", need_tensor("index_select", index, "index"))
    if index.ndim > 1:
        raise ShapeError(f"index_select: the index must have 1 dimension, not {index.ndim}")
    return apply("take", input, cast(index, T.int64), axis=normal_dim(dim, input.ndim))


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``input`` with ``src`` added at the places ``index`` names along ``dim``."""
    _index_of("scatter_add", input, index)
    part = need_tensor("scatter_add", src, "src")
    for d in range(input.ndim):
        if index.shape[d] != part.shape[d]:
            part = narrow(part, d, 0, index.shape[d])
    return apply("scatter_add", input, cast(index, T.int64), part, axis=normal_dim(dim, input.ndim))


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product of vectors, matrices, or batches of matrices (NumPy's rules)."""
    dtype = result_type(need_tensor("matmul", input), need_tensor("matmul", other, "other"))
    if input.dtype is not other.dtype:
        from graphflow.errors import DTypeError

        raise DTypeError(
            f"matmul needs operands of one dtype, got {input.dtype.name} and {other.dtype.name}; "
            f"convert one, for example other.to({input.dtype!r})"
        )
    a, b = cast(input, dtype), cast(other, dtype)
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError("matmul: both operands need at least 1 dimension")
    row, column = a.ndim == 1, b.ndim == 1
    out = apply("matmul", unsqueeze(a, 0) if row else a, unsqueeze(b, 1) if column else b)
    if row:
        out = squeeze(out, -2)
    return squeeze(out, -1) if column else out


swapaxes = transpose
swapdims = transpose
concat = cat
concatenate = cat
moveaxis = movedim
mm = matmul
bmm = matmul
dot = matmul
mv = matmul
