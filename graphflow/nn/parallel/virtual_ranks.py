"""One process in place of several ranks: its batch in equal parts, each computed by itself.

A part is what one of so many ranks would have.  It runs as there, at the same sizes and through
the same kernels, and gradients of parts are added up in the order in which those of ranks are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow import pytree
from graphflow.autograd.parts import OUTSIDE, computing, in_part, shares
from graphflow.errors import GraphFlowError, ShapeError
from graphflow.functions.shaping import cat, narrow
from graphflow.mode import mode
from graphflow.records import replace
from graphflow.tensor import Tensor

_WHO = "DistributedDataParallel(virtual_ranks=…)"


def parts_of(virtual: int, ranks: int) -> int:
    """How many parts each of ``ranks`` computes in place of ``virtual`` ones; an error if none
    of the orders in which they can be added up is that of others."""
    if type(virtual) is not int or virtual < 1 or virtual & (virtual - 1):
        raise GraphFlowError(
            f"DistributedDataParallel: virtual_ranks must be a power of two, not {virtual!r}: "
            "only such sums can be shared out evenly"
        )
    if virtual % ranks:
        fitting = ", ".join(str(1 << n) for n in range(virtual.bit_length()))
        raise GraphFlowError(
            f"DistributedDataParallel: virtual_ranks={virtual} cannot be shared out over "
            f"{ranks} ranks; start {fitting}"
        )
    return virtual // ranks


def in_parts(
    module: Callable[..., Any],
    leaves: Sequence[Tensor],
    count: int,
    axis: int,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """``module(*args, **kwargs)``, computed for each of ``count`` equal parts of the batch.

    Tensors among the arguments are cut along ``axis``, where all have one size; single numbers
    and what is no tensor go to every part.  Results are put together along ``axis``; those of
    one number (a loss) are averaged.  Gradients of the ``leaves`` are added up in a binary tree.
    """
    given, nest = pytree.flatten((args, kwargs))
    rows = _rows(given, count, axis)
    found: list[list[Any]] = []
    shape = None
    for number, part in enumerate(shares(leaves, count)):
        own, named = pytree.unflatten(nest, [_cut(x, number, rows, axis) for x in given])
        with computing(part), _own_casts():
            results, shape = pytree.flatten(module(*own, **named))
        found.append([_moved(x, number, count) for x in results])
    assert shape is not None
    joined = [_joined(same, i, rows, axis) for i, same in enumerate(zip(*found, strict=True))]
    return pytree.unflatten(shape, [_moved(x, count, OUTSIDE) for x in joined])


class _own_casts:
    """A stretch in which autocast keeps no casts of parameters: each part has its own."""

    def __enter__(self) -> None:
        self.held = mode.autocast
        if self.held is not None:
            own = replace(self.held, cached=False)
            mode.autocast = own

    def __exit__(self, *raised: object) -> None:
        mode.autocast = self.held


def _rows(given: Sequence[Any], count: int, axis: int) -> Any:
    """How large a part is along ``axis``."""
    sizes = [x.shape[axis] for x in given if isinstance(x, Tensor) and x.ndim > axis]
    if not sizes:
        raise GraphFlowError(
            f"{_WHO} divides the batch, but no argument is a tensor with an axis {axis}"
        )
    if any(size != sizes[0] for size in sizes):
        raise ShapeError(
            f"{_WHO} divides the batch, but arguments have {', '.join(map(str, sizes))} rows "
            f"along axis {axis}; make what all samples share a buffer of the module"
        )
    if sizes[0] % count:
        raise ShapeError(
            f"{_WHO}: a batch of {sizes[0]} does not divide into the {count} equal parts of "
            "this rank; drop or fill up the last batch of an epoch"
        )
    return sizes[0] // count


def _cut(value: Any, number: int, rows: Any, axis: int) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.ndim > axis:
        value = narrow(value, axis, number * rows, rows)
    return in_part(value, number)


def _moved(value: Any, before: int, number: int) -> Any:
    return in_part(value, number, before) if isinstance(value, Tensor) else value


def _joined(values: Sequence[Any], place: int, rows: Any, axis: int) -> Any:
    """One result of all parts."""
    first = values[0]
    if not isinstance(first, Tensor):
        if any(value is not first and value != first for value in values):
            raise GraphFlowError(
                f"{_WHO}: result {place} of the module is {first!r} for one part of the batch "
                "and something else for another; return a tensor"
            )
        return first
    if first.ndim > axis and first.shape[axis] % rows == 0:  # tokens of samples, perhaps
        return cat(list(values), axis) if len(values) > 1 else first
    if first.ndim == 0 and first.dtype.is_floating_point:
        return _average(values)
    raise ShapeError(
        f"{_WHO}: result {place} of the module, {first.dtype.name}{list(first.shape)}, cannot be "
        f"put together along axis {axis} from parts of {rows} samples; return as many rows for "
        "each sample, or an average of floating-point type"
    )


def _average(values: Sequence[Tensor]) -> Tensor:
    while len(values) > 1:
        values = [(a + b) * 0.5 for a, b in zip(values[::2], values[1::2], strict=True)]
    return values[0]
