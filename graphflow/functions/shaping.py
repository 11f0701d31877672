"""Views and joins: ``reshape``, ``permute``, ``cat``, ``split`` …

Views share memory with their source, as in PyTorch; joins copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from graphflow.cell import ViewStep
from graphflow.checks import as_whole, need_int, need_tensors
from graphflow.device import is_placed
from graphflow.dispatch import apply, apply_view, become
from graphflow.errors import ShapeError
from graphflow.functions.reductions import normal_dim
from graphflow.functions.traced_order import traced_layout
from graphflow.ir import types as T
from graphflow.ir.dims import SymDim
from graphflow.ir.op import lookup
from graphflow.ir.types import DType
from graphflow.keywords import numpy_names
from graphflow.mode import mode
from graphflow.promotion import cast, result_type
from graphflow.traced_sizes import as_plain

if TYPE_CHECKING:
    from graphflow.tensor import Tensor

__all__ = [
    "broadcast_to", "cat", "chunk", "concat", "concatenate", "flatten", "flip",
    "moveaxis", "movedim", "narrow", "permute", "ravel", "reshape", "select",
    "split", "split_with_sizes", "squeeze", "stack", "swapaxes", "swapdims", "t", "transpose",
    "unbind", "unflatten", "unsafe_chunk", "unsafe_split", "unsqueeze",
]  # fmt: skip
METHODS = """
broadcast_to chunk expand expand_as flatten flip moveaxis movedim narrow
permute ravel reshape select split split_with_sizes squeeze squeeze_ swapaxes swapaxes_ swapdims
swapdims_ t t_ transpose transpose_ unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze
unsqueeze_ view
""".split()


def _extents(shape: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return tuple(
        d if type(d) is int or isinstance(d, SymDim) else need_int("a size", d) for d in shape
    )


def sizes_of(name: str, given: tuple[Any, ...], named: Any, keyword: str) -> tuple[Any, ...]:
    """The sizes of a call: several arguments, one sequence, or one under ``keyword``."""
    if named:
        if given or set(named) != {keyword}:
            raise TypeError(f"{name} takes sizes once, in order or as {keyword}=")
        given = (named[keyword],)
    return _extents(given)


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
    if wild is not None and known > 0:
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


def reshape(input: Tensor, *shape: Any, **named: Any) -> Tensor:
    """The same elements in another shape: a view where memory allows, else a copy."""
    extents = _infer(input, sizes_of("reshape", shape, named, "shape"))
    if extents == input.shape or _viewable(input, extents):
        return apply_view("reshape", input, shape=extents)
    if mode.tracer is not None:
        return apply("reshape", input, shape=extents)
    return apply_view("reshape", input.clone(), shape=extents)


def view(input: Tensor, *size: Any, **named: Any) -> Tensor:
    """Like :func:`reshape`, but never copies: an error when memory does not allow it.

    Given a dtype instead of sizes: the same bytes as elements of that dtype.
    """
    dtype = named.pop("dtype", None) or (size[0] if len(size) == 1 else None)
    if isinstance(dtype, DType):
        return apply_view("bitcast", input, dtype=dtype)
    extents = _infer(input, sizes_of("view", size, named, "size"))
    if mode.tracer is None and not _viewable(input, extents):
        raise ShapeError(
            f"view size {list(extents)} is not compatible with the strides of the input of shape "
            f"{list(input.shape)}; use reshape(), which copies where it must"
        )
    return apply_view("reshape", input, shape=extents)


def _viewable(input: Tensor, extents: tuple[int, ...]) -> bool:
    if mode.tracer is not None:
        step = ViewStep(lookup("reshape"), {"shape": as_plain(extents)})
        return not input._chain or traced_layout(input, (step,)) is not None
    array: Any = input._eager()
    if array.flags.c_contiguous:
        return True
    if is_placed(array):
        from graphflow.on_device import has_view

        return has_view(array, extents)
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


def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension: a view where memory allows, else a copy."""
    return reshape(input, -1) if input.ndim != 1 else input.contiguous()


@numpy_names
def unflatten(input: Tensor, dim: int, sizes: Any, *more: Any) -> Tensor:
    """Split dimension ``dim`` into ``sizes``, one of which may be -1."""
    axis = normal_dim(dim, input.ndim)
    given = _extents((sizes, *more))
    if not given:
        raise ShapeError("unflatten: sizes must be non-empty")
    part = _infer(_Extent(input.shape[axis]), given)  # type: ignore[arg-type]
    return reshape(input, (*input.shape[:axis], *part, *input.shape[axis + 1 :]))


class _Extent:
    """Just a shape, for checking the pieces of one dimension."""

    def __init__(self, extent: int) -> None:
        self.shape = (extent,)


def permute(input: Tensor, *dims: Any, **named: Any) -> Tensor:
    """Dimensions in another order: a view."""
    given = sizes_of("permute", dims, named, "dims")
    axes = tuple(normal_dim(d, input.ndim) for d in given)
    if sorted(axes) != list(range(input.ndim)):
        raise ShapeError(
            f"permute{given} does not name every dimension of {list(input.shape)} once"
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


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Move one dimension, or several, to other places: a view."""
    rank = input.ndim
    old = [normal_dim(d, rank) for d in _listed(source)]
    new = [normal_dim(d, rank) for d in _listed(destination)]
    if len(old) != len(new):
        raise ShapeError(f"movedim: {len(old)} dimensions cannot move to {len(new)} places")
    if len(set(old)) != len(old) or len(set(new)) != len(new):
        raise ShapeError(f"movedim: a dimension appears twice in {source} or {destination}")
    rest = iter([d for d in range(rank) if d not in old])
    held = dict(zip(new, old))
    return permute(input, tuple(held[k] if k in held else next(rest) for k in range(rank)))


def _listed(dims: Any) -> Sequence[int]:
    return dims if isinstance(dims, (tuple, list)) else (dims,)


@numpy_names
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without dimensions of extent 1 (all of them, or those in ``dim``): a view."""
    shape = input.shape
    given = range(len(shape)) if dim is None else [normal_dim(d, len(shape)) for d in _listed(dim)]
    if len(set(given)) != len(given):
        raise ShapeError(f"squeeze: a dimension appears twice in {dim}")
    kept = tuple(d for i, d in enumerate(shape) if i not in given or d != 1)
    return apply_view("reshape", input, shape=kept)


@numpy_names
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of extent 1 at ``dim``: a view."""
    axis = normal_dim(dim, input.ndim + 1)
    shape = input.shape
    return apply_view("reshape", input, shape=(*shape[:axis], 1, *shape[axis:]))


def expand(input: Tensor, *size: Any, implicit: bool = False, **named: Any) -> Tensor:
    """Repeat dimensions of extent 1 without copying (-1 keeps an extent): a view."""
    wanted = sizes_of("expand", size, named, "size")
    shape = input.shape
    lead = len(wanted) - len(shape)
    if lead < 0:
        raise ShapeError(f"expand to {list(wanted)} has fewer dimensions than {list(shape)}")
    out = tuple(
        (shape[i - lead] if i >= lead else d) if d == -1 else d for i, d in enumerate(wanted)
    )
    if any(isinstance(d, int) and d < 0 for d in out):
        raise ShapeError(f"expand to {list(wanted)}: -1 keeps an extent, and there is none to keep")
    for i, d in enumerate(shape):
        if out[i + lead] != d and d != 1:
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


@numpy_names
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Joined along an existing dimension; 1-d tensors without elements add nothing."""
    tensors = need_tensors("cat", tensors)
    dtype = result_type(*[x.dtype for x in tensors])
    for i, x in enumerate(tensors):
        if not x.ndim:
            raise ShapeError(f"cat: entry {i} has no dimension to be joined along; unsqueeze it")
    parts = [cast(x, dtype) for x in tensors if x.shape != (0,)] or [cast(tensors[0], dtype)]
    return apply("concatenate", *parts, axis=normal_dim(dim, parts[0].ndim))


@numpy_names
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Joined along a new dimension."""
    tensors = need_tensors("stack", tensors)
    first = tensors[0].shape
    for i, x in enumerate(tensors):
        if x.shape != first:
            raise ShapeError(
                f"stack needs equal shapes, got {list(first)} and {list(x.shape)} (entry {i})"
            )
    axis = normal_dim(dim, len(first) + 1)
    return cat([unsqueeze(x, axis) for x in tensors], axis)


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """``length`` entries of dimension ``dim`` from ``start``: a view.

    In a compiled function ``start`` may be a tensor; then it is a copy, and positions
    beyond the dimension are an error at run time.
    """
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis] if input.ndim else 1
    is_tensor = hasattr(start, "dtype")
    if is_tensor and (start.ndim or start.dtype.kind not in ("int", "uint")):
        raise TypeError("narrow: start must be a whole number or a 0-d integer tensor")
    if is_tensor and mode.tracer is not None:
        return _narrowed_at(input, axis, start, length)
    start = as_whole(start)
    begin = start + extent if start < 0 else start
    if not (0 <= begin and begin + length <= extent and length >= 0) or not input.ndim:
        raise ShapeError(
            f"narrow: {start}+{length} does not fit dimension {dim} of extent {extent}"
        )
    return cut(input, axis, begin, begin + length, 1)


def _narrowed_at(input: Tensor, axis: int, start: Tensor, length: int) -> Tensor:
    from graphflow.functions.creation import iota
    from graphflow.functions.picking import from_the_front

    first = from_the_front(start, input.shape[axis])
    return apply("take", input, apply("add", first, iota((length,), 0, T.int64)), axis=axis)


def cut(input: Tensor, axis: int, start: int, stop: int, step: int) -> Tensor:
    """Entries ``start, start+step, … < stop`` of one dimension: a view."""
    shape = input.shape
    starts = tuple(start if i == axis else 0 for i in range(len(shape)))
    limits = tuple(stop if i == axis else d for i, d in enumerate(shape))
    steps = tuple(step if i == axis else 1 for i in range(len(shape)))
    return apply_view("slice", input, starts=starts, limits=limits, steps=steps)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """Entry ``index`` of dimension ``dim``, which goes away: a view."""
    index = as_whole(index)
    if input.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor")
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis]
    if not -extent <= index < extent:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {extent}")
    place = index + extent if index < 0 else index
    part = cut(input, axis, place, place + 1, 1)
    shape = input.shape
    return apply_view("reshape", part, shape=(*shape[:axis], *shape[axis + 1 :]))


@numpy_names
def split(
    tensor: Tensor, split_size_or_sections: Any = None, dim: int = 0, *, split_size: Any = None
) -> tuple[Tensor, ...]:
    """Consecutive pieces of a size, or of the given sizes: views."""
    size = split_size_or_sections if split_size is None else split_size
    if isinstance(size, (tuple, list)):
        return split_with_sizes(tensor, size, dim)
    if not tensor.ndim:
        raise ShapeError("split needs a tensor of at least 1 dimension")
    size, extent = need_int("split: the size", size), tensor.shape[normal_dim(dim, tensor.ndim)]
    if size < 0 or (size == 0 and extent != 0):
        raise ShapeError(f"split: the size must be positive, not {size}")
    if size == 0:
        return split_with_sizes(tensor, [0], dim)
    whole, rest = divmod(extent, size)
    return split_with_sizes(tensor, [size] * whole + ([rest] if rest or not extent else []), dim)


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Consecutive pieces of the given sizes: views."""
    if not input.ndim:
        raise ShapeError("split needs a tensor of at least 1 dimension")
    axis = normal_dim(dim, input.ndim)
    extent = input.shape[axis]
    if _total(split_sizes) != extent or any(size < 0 for size in split_sizes):
        raise ShapeError(
            f"split: sizes {list(split_sizes)} must be at least 0 and add up to {extent}, the "
            f"extent of dimension {dim}"
        )
    pieces, start = [], 0
    for size in split_sizes:
        pieces.append(cut(input, axis, start, start + size, 1))
        start += size
    return tuple(pieces)


def _total(sizes: Sequence[int]) -> int:
    total = 0
    for size in sizes:
        total += size
    return total


@numpy_names
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most ``chunks`` pieces of equal size (the last may be smaller): views."""
    if not input.ndim:
        raise ShapeError("chunk needs a tensor of at least 1 dimension")
    if chunks <= 0:
        raise ShapeError(f"chunk: the number of chunks must be positive, not {chunks}")
    extent = input.shape[normal_dim(dim, input.ndim)]
    if extent == 0:
        return split_with_sizes(input, [0] * chunks, dim)
    return split(input, -(-extent // chunks), dim)


@numpy_names
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Every entry of a dimension: views."""
    if not input.ndim:
        raise ShapeError("unbind needs a tensor of at least 1 dimension")
    return tuple(select(input, dim, i) for i in range(input.shape[normal_dim(dim, input.ndim)]))


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Every window of ``size`` entries of a dimension, ``step`` apart: a view.

    The place inside the window is a new last dimension.
    """
    axis = normal_dim(dimension, input.ndim)
    extent = input.shape[axis] if input.ndim else 1
    if size < 0 or step <= 0 or size > extent:
        raise ShapeError(
            f"unfold: a window of {size} entries every {step} does not fit dimension {dimension} "
            f"of extent {extent}"
        )
    if not input.ndim:
        return cut(reshape(input, 1), 0, 0, size, 1)
    return apply_view("window", input, axes=(axis,), sizes=(size,), steps=(step,), dilations=(1,))


def flip(input: Tensor, *dims: Any, **named: Any) -> Tensor:
    """Dimensions in reverse order (a copy)."""
    given = sizes_of("flip", dims, named, "dims")
    axes = tuple(sorted(normal_dim(d, input.ndim) for d in given))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"flip: a dimension appears twice in {given}")
    return apply("flip", input, axes=axes) if axes and input.ndim else input.clone()


def squeeze_(input: Tensor, dim: Any = None) -> Tensor:
    """The tensor itself without dimensions of extent 1."""
    return become(input, squeeze, dim)


def unsqueeze_(input: Tensor, dim: int) -> Tensor:
    """The tensor itself with a new dimension of extent 1."""
    return become(input, unsqueeze, dim)


def transpose_(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """The tensor itself with two dimensions exchanged."""
    return become(input, transpose, dim0, dim1)


def t_(input: Tensor) -> Tensor:
    """The tensor itself, transposed."""
    return become(input, t)


swapaxes = transpose
swapdims = transpose
swapaxes_ = transpose_
swapdims_ = transpose_
unsafe_chunk = chunk
unsafe_split = split
concat = cat
concatenate = cat
moveaxis = movedim
