"""Apply one primitive to tensors: eagerly through its reference, or into a trace.

Everything the front does to tensors ends in :func:`apply`, :func:`apply_view`
or :func:`assign`.  They run the operation, or record it in the trace under
way, and keep the history that ``backward()`` walks, in the same way for both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from graphflow.autograd.history import record
from graphflow.cell import (
    Cell,
    Filling,
    ViewStep,
    copy_of,
    counted,
    invert_view,
    view_of,
    write_through,
)
from graphflow.device import CPU, Device, devices, is_placed, put, put_in_place
from graphflow.errors import DTypeError, GraphFlowError, ShapeError, TraceError
from graphflow.ir import build
from graphflow.ir.dims import SymDim
from graphflow.ir.op import Kind, OpDef, lookup
from graphflow.ir.types import DType, TensorType, keeps_kind
from graphflow.mode import mode
from graphflow.quiet import quietly
from graphflow.runtime.storage import Array
from graphflow.tensor import Tensor
from graphflow.traced_sizes import as_plain

_VIEW, _REDUCTION = Kind.VIEW, Kind.REDUCTION
MUCH = 1 << 17
"""Elements of an operand times the operation's cost from which a kernel is worth its call."""


def apply(op: OpDef | str, *inputs: Tensor, **attrs: Any) -> Tensor:
    """The tensor ``op(*inputs, **attrs)``; operands have the dtypes the op asks for.

    The result has memory of its own.  Raises Shape/DTypeError naming operation,
    types, module and user line.
    """
    record_ = lookup(op) if op.__class__ is str else op
    assert isinstance(record_, OpDef)
    out = _emit(record_, record_.reference, inputs, attrs)
    if record_.kind is _VIEW and mode.tracer is None and out._array.base is not None:
        out._array = out._cell.value = np.array(out._array)
    return out


def _emit(
    op: OpDef, reference: Callable[..., Any], inputs: tuple[Tensor, ...], attrs: dict[str, Any]
) -> Tensor:
    """Like :func:`apply`, but views may share memory: what gradient rules use."""
    tracer = mode.tracer
    if tracer is None:
        value = _values(op, reference, inputs, attrs)
        if op.kind is _REDUCTION and value.__class__ is np.ndarray:
            value = np.asarray(value, order="C")  # NumPy keeps the order of the operand's axes
        elif value.__class__ is not np.ndarray and not (devices.used and is_placed(value)):
            value = np.asarray(value)
        if not inputs and mode.place is not None:
            value = put_in_place(value)
        out = Tensor._of(Cell(value))
    else:
        attrs = {name: as_plain(value) for name, value in attrs.items()}
        out = Tensor._of(Cell(tracer.emit(op, inputs, attrs), tracer))
    if mode.grad:
        for t in inputs:
            if t._requires_grad:
                record(op, inputs, attrs, out)
                break
    elif tracer is not None:
        tracer.block_gradient(inputs, out)
    return out


def apply_several(op: OpDef | str, *inputs: Tensor, **attrs: Any) -> tuple[Tensor, ...]:
    """The results of an operation that has several."""
    from graphflow.autograd.several import record_several

    record_ = lookup(op) if op.__class__ is str else op
    assert isinstance(record_, OpDef)
    tracer = mode.tracer
    outs: list[Tensor]
    if tracer is None:
        outs = [
            Tensor._of(Cell(copy_of(v))) for v in _values(record_, record_.reference, inputs, attrs)
        ]
    else:
        attrs = {name: as_plain(value) for name, value in attrs.items()}
        nodes = tracer.emit_several(record_, inputs, attrs)
        outs = [Tensor._of(Cell(node, tracer)) for node in nodes]
    if mode.grad:
        if any(t._requires_grad for t in inputs):
            record_several(record_, inputs, attrs, outs)
    elif tracer is not None:
        for out in outs:
            tracer.block_gradient(inputs, out)
    return tuple(outs)


def _values(
    op: OpDef, reference: Callable[..., Any], inputs: tuple[Tensor, ...], attrs: dict[str, Any]
) -> Any:
    """The reference's answer.  Infinities and NaN are values, not warnings."""
    try:
        arrays = [t._array if t._array.__class__ is np.ndarray else t._eager() for t in inputs]
        if devices.used and any(map(is_placed, arrays)):
            return _on_device(op, arrays, attrs)
        for array in arrays:
            if array.size * op.cost >= MUCH:
                if (made := _by_kernel(op, arrays, attrs)) is not None:
                    return made
                break
        if arrays and arrays[-1].dtype.kind == "c":  # NumPy orders complex numbers, we do not
            op.infer([t._type_now() for t in inputs], attrs)
        return quietly(reference, arrays, attrs)
    except GraphFlowError:
        raise
    except (ValueError, TypeError, IndexError) as error:
        raise _explain(op, inputs, attrs, error) from None


def _by_kernel(op: OpDef, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    from graphflow.eager_kernels import value

    return value(op, arrays, attrs)


def _on_device(op: OpDef, arrays: list[Any], attrs: dict[str, Any]) -> Any:
    from graphflow.on_device import evaluate

    return evaluate(op, arrays, attrs)


def apply_view(op: OpDef | str, source: Tensor, **attrs: Any) -> Tensor:
    """A view of ``source``: shares its cell; mutations of either show in both.

    ``op`` must be a single-operand VIEW that NumPy can express without a copy
    (callers use :func:`apply` for those it cannot).
    """
    record_ = lookup(op) if op.__class__ is str else op
    assert isinstance(record_, OpDef)
    tracer = mode.tracer
    if tracer is not None:
        attrs = {name: as_plain(value) for name, value in attrs.items()}
    out = Tensor._of(source._cell, (*source._chain, ViewStep(record_, attrs)))
    if tracer is None:
        out._array = view_of(record_, source._eager(), attrs)
    else:
        out._array = tracer.emit(record_, (source,), attrs)
        out._seen = tracer.shadow(source._cell).version
    if mode.grad:
        out._base = source._base if source._base is not None else source
        if source._requires_grad:
            record(record_, (source,), attrs, out)
        else:
            out._cell.seen_by(out)
        out._origin = out._base._origin  # what was recorded follows from the base as it is now
    return out


def full(
    shape: tuple[int, ...], value: bool | int | float, dtype: DType, device: Device | None = None
) -> Tensor:
    """A new tensor filled with ``value``; in a trace an expanded constant."""
    tracer = mode.tracer
    if tracer is None:
        array = _filled(shape, value, dtype)
        chosen = mode.place if device is None else device
        if chosen is None or chosen == CPU:
            return Tensor._of(Cell(array))
        return Tensor._of(Cell(put(array, chosen)))
    return Tensor._of(Cell(build.splat(value, TensorType(dtype, as_plain(tuple(shape)))), tracer))


def _filled(
    shape: tuple[int, ...], value: bool | int | float, dtype: DType
) -> np.ndarray[Any, Any]:
    """An array of one value; for zeros the memory is only touched when it is used."""
    plain = value.__class__ in (bool, int, float)
    if plain and not value and math.copysign(1.0, value) > 0.0:
        return np.zeros(shape, dtype.numpy)
    return np.full(shape, value, dtype.numpy)


def literal(array: np.ndarray[Any, Any]) -> Tensor:
    """A new tensor holding ``array`` (not copied); in a trace a constant of the program."""
    tracer = mode.tracer
    if tracer is None:
        return Tensor._of(Cell(put_in_place(array)))
    return Tensor._of(Cell(build.constant(array), tracer))


def assign(target: Tensor, new: Tensor) -> Tensor:
    """``target[...] = new``: the one in-place primitive; every in-place method ends here.

    ``new`` has the shape of ``target`` and is cast to its dtype.  Views of the
    same memory see the change; the history of ``target`` becomes that of ``new``.
    """
    if new.shape != target.shape:
        raise ShapeError(
            f"an in-place result of shape {list(new.shape)} does not fit "
            f"the tensor of shape {list(target.shape)} it is written to"
        )
    owner = target._base if target._base is not None else target
    tracked = mode.grad and (owner._requires_grad or new._requires_grad)
    if tracked and owner._requires_grad and owner._grad_fn is None:
        raise GraphFlowError(
            "a leaf tensor that requires grad is used in an in-place operation; "
            "wrap the operation in gf.no_grad(), or clone the tensor first"
        )
    if new.dtype is not target.dtype:
        if not keeps_kind(new.dtype, target.dtype):
            raise DTypeError(
                f"an in-place result of type {new.dtype.name} can't be cast to the type of the "
                f"tensor it is written to, {target.dtype.name}"
            )
        new = apply("cast", new, dtype=target.dtype)
    if tracked and (node := owner.grad_fn) is not None:
        node.keep_from(owner._cell)
    whole = _replaced(owner, target, new) if tracked and owner is not target else new
    _store(target, new)
    if tracked:
        if mode.tracer is not None and owner._cell.tracer is None:
            mode.tracer.assigned.note_history(owner)
        owner._adopt(whole)
        if owner is not target:
            target._rederive()
    return target


def become(tensor: Tensor, view: Callable[..., Tensor], *args: Any) -> Tensor:
    """Make ``tensor`` itself the view ``view(tensor, *args)`` of its memory (``x.t_()``)."""
    if mode.grad and tensor._requires_grad and tensor.is_leaf:
        raise GraphFlowError(
            "a leaf tensor that requires grad cannot change its shape in place; use the form "
            "without the underscore"
        )
    if mode.tracer is not None and tensor._cell.tracer is not mode.tracer:
        raise TraceError(
            "a tensor from outside a compiled function cannot change its shape in place there; "
            "use the form without the underscore"
        )
    old: Tensor = tensor.detach()
    old._grad_fn, old._requires_grad = tensor.grad_fn, tensor._requires_grad
    old._base, old._origin = tensor._base, tensor._origin
    new = view(old, *args)
    tensor._chain, tensor._array, tensor._seen = new._chain, new._array, new._seen
    tensor._grad_fn, tensor._requires_grad = new._grad_fn, new._requires_grad
    return tensor


def in_place(
    target: Tensor, function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """``target[...] = function(target, ...)``.

    Where a gradient is recorded, the function sees a copy: its rule may need the
    value that is about to be overwritten.
    """
    source = target
    if mode.grad and any(map(_recorded, (target, *args))):
        source = _before(target)
    return assign(target, function(source, *args, **kwargs))


def _recorded(value: Any) -> bool:
    return isinstance(value, Tensor) and value._requires_grad


def _before(tensor: Tensor) -> Tensor:
    """The value and history of a tensor now, in memory that nobody writes to."""
    tracer = mode.tracer
    if tracer is None:
        old = Tensor._of(Cell(copy_of(tensor._eager())))
    else:
        old = Tensor._of(Cell(tracer.node(tensor), tracer))
    if tensor.grad_fn is not None:
        old._grad_fn, old._requires_grad = tensor.grad_fn, True
    return old


def _replaced(owner: Tensor, view: Tensor, new: Tensor) -> Tensor:
    """The owner's whole value after its view was set to ``new``, with its history."""
    steps = view._chain[len(owner._chain) :]
    parents = [owner]
    for step in steps[:-1]:
        parents.append(apply(step.op, parents[-1], **step.attrs))
    for step, parent in zip(reversed(steps), reversed(parents), strict=True):
        new = invert_view(step, parent, new, apply)
    return new


def _store(target: Tensor, new: Tensor) -> None:
    tracer = mode.tracer
    if tracer is None:
        source = new._eager()
        array = _room_in(target)
        try:
            if array.__class__ is source.__class__ is np.ndarray:
                np.copyto(array, source)
            else:
                from graphflow.on_device import copy_into

                copy_into(array, source)
        finally:  # Ctrl-C may come as soon as it is written
            target._cell.version += 1
        return
    value = tracer.node(new)
    cell = tracer.shadow(target._cell)
    cell.value = write_through(cell.value, target._chain, value)
    cell.version += 1
    tracer.mutated(target._cell)


def assign_all(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """``target[...] = new`` for pairs of one shape and dtype, without any history.

    What is much in all is copied by several threads.
    """
    if mode.tracer is not None or devices.used:
        for target, new in pairs:
            _store(target, new)
        return
    from graphflow.runtime.shared_work import copy_all

    rooms = [(_room_in(target), new._eager()) for target, new in pairs]
    counted([target._cell for target, _ in pairs], copy_all, rooms)


def fill_with(target: Tensor, filler: Callable[[Array], Filling | None]) -> bool:
    """Put new values into all of eager memory, if nothing is recorded of that.

    ``filler(array)`` is what writes them: at once, or when somebody asks for them first.  False,
    with nothing done, where it is another's business or the filler declines (None).
    """
    owner = target._base if target._base is not None else target
    if mode.tracer is not None or (mode.grad and owner._requires_grad):
        return False
    array = target._memory()
    if array.__class__ is not np.ndarray:
        return False
    _check_writeable(array)
    fill = filler(array)
    if fill is None:
        return False
    cell = target._cell
    cell.version += 1
    del array
    if target._chain:
        fill(target._eager())
    else:
        target._array = None
        cell.fill_later(fill)
    return True


def assign_at(target: Tensor, places: tuple[Any, ...], value: np.ndarray[Any, Any]) -> None:
    """``target[places] = value`` in eager memory, by NumPy's rules; nothing is recorded."""
    array = target._eager()
    _check_writeable(array)
    array[places] = value
    target._cell.version += 1


def _room_in(target: Tensor) -> Any:
    """The eager memory of ``target``, all of which is about to be written."""
    if not target._chain:
        target._cell.forget_filling()
    array = target._eager()
    _check_writeable(array)
    return array


def _check_writeable(array: np.ndarray[Any, Any]) -> None:
    if not array.flags.writeable:
        raise GraphFlowError(
            "cannot write in place: several elements of the tensor share one memory "
            "location (an expanded tensor) or the memory is read-only; clone() it first"
        )


class TensorBuilder:
    """The :class:`graphflow.ir.op.Builder` over tensors, for gradient rules."""

    def emit(self, op: str, *inputs: Any, **attrs: Any) -> Tensor:
        """Apply ``op``; Python scalars take the dtype of the first tensor."""
        record_ = lookup(op)
        return _emit(record_, record_.unordered or record_.reference, _lift(inputs), attrs)

    def several(self, op: str, *inputs: Any, **attrs: Any) -> tuple[Tensor, ...]:
        """The results of ``op``, which has several."""
        return apply_several(op, *inputs, **attrs)

    def __getattr__(self, op: str) -> Callable[..., Any]:
        if op.startswith("_"):
            raise AttributeError(op)
        made = self.__dict__[op] = partial(self.emit, op)
        return made


TENSORS = TensorBuilder()


def _lift(inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
    for x in inputs:
        if isinstance(x, (float, int, SymDim)):
            like = next(t for t in inputs if isinstance(t, Tensor))
            return tuple(t if isinstance(t, Tensor) else scalar(t, like.dtype) for t in inputs)
    return inputs


def scalar(value: bool | int | float | SymDim, dtype: DType) -> Tensor:
    """A 0-d constant, or the size of a dimension; negative numbers wrap in unsigned dtypes."""
    if isinstance(value, SymDim):
        return apply("extent", dim=value, dtype=dtype)
    if dtype.kind == "uint" and value < 0:
        value = int(value) % (1 << 8 * dtype.itemsize)
    if mode.tracer is None:
        return Tensor._of(Cell(np.array(value, dtype.numpy)))
    return Tensor._of(Cell(build.constant(value, dtype), mode.tracer))


def _explain(
    op: OpDef, inputs: tuple[Tensor, ...], attrs: dict[str, Any], error: Exception
) -> Exception:
    """A NumPy complaint as ours: the record's own type rule says it better, if it can."""
    leaves = [build.input_node(f"x{i}", t._type) for i, t in enumerate(inputs)]
    try:
        build.infer_type(op, tuple(leaves), attrs)
    except GraphFlowError as better:
        return better
    types = ", ".join(str(t._type) for t in inputs)
    return GraphFlowError(f"{op.name}({types}): {error}")
