"""PyTorch's collectives on tensors: every rank of the group calls the same ones in one order.

They work in place on the tensors they are given, as PyTorch's do; with ``async_op`` they return
a :class:`Work` to wait for.  In a compiled function :func:`all_reduce` becomes part of the
graph; the others are for the Python around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.autograd.modes import no_grad
from graphflow.device import is_placed
from graphflow.distributed.process_group import ProcessGroup, get_rank, group_or_world
from graphflow.distributed.reduce_op import ReduceOp, reduction
from graphflow.distributed.reducing import begin_in_graph
from graphflow.errors import GraphFlowError, ShapeError, TraceError
from graphflow.functions.creation import as_tensor
from graphflow.ir.op import Array
from graphflow.mode import mode
from graphflow.tensor import Tensor


class Work:
    """A collective under way; :meth:`wait` puts its result where it belongs."""

    def __init__(self, pending: Any, after: Callable[[], None]) -> None:
        self._pending, self._after = pending, after
        self._done = pending is None
        if self._done:
            after()

    def wait(self, timeout: Any = None) -> bool:
        """Return when the result is there; True.  (The group's timeout holds.)"""
        if not self._done:
            self._pending.finish()
            self._done = True
            self._after()
        return True

    def is_completed(self) -> bool:
        """Whether :meth:`wait` would return at once."""
        return self._done or bool(self._pending.advance())

    def is_success(self) -> bool:
        """Whether it is done; what failed has raised."""
        return self.is_completed()


def _finished(work: Work, async_op: bool) -> Work | None:
    if async_op:
        return work
    work.wait()
    return None


def _checked(name: str, tensor: Any, group: ProcessGroup | None) -> ProcessGroup:
    """The group; errors for what is no tensor, for a trace, for a group this process is not in."""
    for value in tensor if isinstance(tensor, (list, tuple)) else (tensor,):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} takes tensors, not {type(value).__name__}")
    if mode.tracer is not None:
        raise TraceError(
            f"distributed.{name} in a compiled function is not possible; call it outside "
            "(all_reduce is, and becomes part of the graph)"
        )
    found = group_or_world(group)
    if found.rank() < 0:
        raise GraphFlowError(f"{name}: this process is not in the group of ranks {found.ranks}")
    return found


def _position(name: str, rank: int | None, group: ProcessGroup) -> int:
    if rank is None or rank not in group.ranks:
        raise GraphFlowError(f"{name}: rank {rank} is not in the group of ranks {group.ranks}")
    return group.ranks.index(rank)


def _contents(tensor: Tensor) -> Array:
    """A row-major copy of a tensor's elements on the CPU."""
    return np.array(tensor.detach().numpy(force=True), order="C")


def _fill(tensor: Tensor, array: Array) -> None:
    """Write ``array`` into a tensor, wherever it lies."""
    with no_grad():
        if is_placed(tensor._eager()):
            tensor.copy_(as_tensor(array.reshape(tuple(tensor.shape))))
            return
        tensor._eager()[...] = array.reshape(tuple(tensor.shape))
        tensor._cell.version += 1


def _same_type(name: str, tensors: Sequence[Tensor], like: Tensor) -> None:
    for tensor in tensors:
        if tensor.shape != like.shape or tensor.dtype is not like.dtype:
            raise ShapeError(
                f"{name}: tensors of one call have one type; got {like._type} and {tensor._type}"
            )


def _summed(array: Array) -> Array:
    from graphflow.distributed.messages import accumulated

    return array.astype(accumulated(array.dtype), copy=False)


# ---- reductions -----------------------------------------------------------------------------


def all_reduce(
    tensor: Tensor, op: ReduceOp = ReduceOp.SUM, group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Any:  # fmt: skip
    """Replace ``tensor`` on every rank by the reduction of all of them."""
    if mode.tracer is not None and isinstance(tensor, Tensor):
        work = begin_in_graph([tensor], reduction(op), group_or_world(group))
        return _finished(work, async_op)  # type: ignore[arg-type]
    return _reduced("all_reduce", tensor, op, group, None, async_op)


def reduce(
    tensor: Tensor, dst: int | None = None, op: ReduceOp = ReduceOp.SUM,
    group: ProcessGroup | None = None, async_op: bool = False, group_dst: int | None = None,
) -> Work | None:  # fmt: skip
    """Replace ``tensor`` on rank ``dst`` by the reduction of all of them."""
    found = group_or_world(group)
    root = group_dst if group_dst is not None else _position("reduce", dst, found)
    return _reduced("reduce", tensor, op, group, root, async_op)


def _reduced(
    name: str, tensor: Tensor, op: ReduceOp, group: ProcessGroup | None, root: int | None,
    async_op: bool,
) -> Work | None:  # fmt: skip
    found, how = _checked(name, tensor, group), reduction(op)
    if how == "avg" and not (tensor.dtype.is_floating_point or tensor.dtype.is_complex):
        raise GraphFlowError(f"{name}: an average needs floating-point tensors; use ReduceOp.SUM")
    if found.channel is None:
        return _finished(Work(None, lambda: None), async_op)
    array = _summed(_contents(tensor))
    pending = found.channel.reduce_in_place(array, how, root)

    def after() -> None:
        if root is None or root == found.rank():
            _fill(tensor, array / found.size() if how == "avg" else array)

    return _finished(Work(pending, after), async_op)


def reduce_scatter_tensor(
    output: Tensor, input: Tensor, op: ReduceOp = ReduceOp.SUM,
    group: ProcessGroup | None = None, async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Reduce ``input`` and give every rank its equal part of it, along the first axis."""
    found = _checked("reduce_scatter_tensor", [output, input], group)
    if input.numel() != output.numel() * found.size():
        raise ShapeError(
            f"reduce_scatter_tensor: an input of {list(input.shape)} is not {found.size()} "
            f"outputs of {list(output.shape)}"
        )
    rows = _summed(_contents(input).reshape(found.size(), -1))
    return _scattered(output, rows, op, found, async_op)


def reduce_scatter(
    output: Tensor, input_list: Sequence[Tensor], op: ReduceOp = ReduceOp.SUM,
    group: ProcessGroup | None = None, async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Reduce a list of tensors, one a rank, and give every rank its own."""
    found = _checked("reduce_scatter", [output, *input_list], group)
    _same_type("reduce_scatter", input_list, output)
    if len(input_list) != found.size():
        raise GraphFlowError(f"reduce_scatter: {len(input_list)} tensors for {found.size()} ranks")
    rows = _summed(np.stack([_contents(t).reshape(-1) for t in input_list]))
    return _scattered(output, rows, op, found, async_op)


def _scattered(
    output: Tensor, rows: Array, op: ReduceOp, group: ProcessGroup, async_op: bool
) -> Work | None:
    how = reduction(op)
    own = np.empty(rows.shape[1], rows.dtype)
    pending = None
    if group.channel is None:
        own[...] = rows[0]
    else:
        pending = group.channel.reduce_scatter(rows, own, how)
    scale = group.size() if how == "avg" else 1
    return _finished(Work(pending, lambda: _fill(output, own / scale if scale > 1 else own)),
                     async_op)  # fmt: skip


# ---- copies ---------------------------------------------------------------------------------


def broadcast(
    tensor: Tensor, src: int | None = None, group: ProcessGroup | None = None,
    async_op: bool = False, group_src: int | None = None,
) -> Work | None:  # fmt: skip
    """Replace ``tensor`` on every rank by that of rank ``src``."""
    found = _checked("broadcast", tensor, group)
    root = group_src if group_src is not None else _position("broadcast", src, found)
    if found.channel is None:
        return _finished(Work(None, lambda: None), async_op)
    array = _contents(tensor)
    pending = found.channel.broadcast(array, root)
    return _finished(Work(pending, lambda: _fill(tensor, array)), async_op)


def all_gather(
    tensor_list: list[Tensor], tensor: Tensor, group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Fill ``tensor_list``, one a rank, with every rank's ``tensor``."""
    found = _checked("all_gather", [tensor, *tensor_list], group)
    _same_type("all_gather", tensor_list, tensor)
    _one_each("all_gather", tensor_list, found)
    return _finished(_all_gathered(tensor, tensor_list, found), async_op)


def all_gather_into_tensor(
    output_tensor: Tensor, input_tensor: Tensor, group: ProcessGroup | None = None,
    async_op: bool = False,
) -> Work | None:  # fmt: skip
    """Fill ``output_tensor`` with every rank's ``input_tensor``, one after the other."""
    found = _checked("all_gather_into_tensor", [output_tensor, input_tensor], group)
    if output_tensor.numel() != input_tensor.numel() * found.size():
        raise ShapeError(
            f"all_gather_into_tensor: an output of {list(output_tensor.shape)} does not hold "
            f"{found.size()} inputs of {list(input_tensor.shape)}"
        )
    parts = [output_tensor.view(found.size(), *input_tensor.shape)[i] for i in range(found.size())]
    return _finished(_all_gathered(input_tensor, parts, found), async_op)


def _all_gathered(tensor: Tensor, targets: Sequence[Tensor], group: ProcessGroup) -> Work:
    array = _contents(tensor)
    rows = np.empty((group.size(), *array.shape), array.dtype)
    pending = None
    if group.channel is None:
        rows[0] = array
    else:
        pending = group.channel.all_gather(array, rows)
    return Work(pending, lambda: _fill_all(targets, rows))


def _fill_all(targets: Sequence[Tensor], rows: Array) -> None:
    for target, row in zip(targets, rows, strict=True):
        _fill(target, row)


def _one_each(name: str, tensors: Sequence[Tensor], group: ProcessGroup) -> None:
    if len(tensors) != group.size():
        raise GraphFlowError(f"{name}: {len(tensors)} tensors for {group.size()} ranks")


def gather(
    tensor: Tensor, gather_list: list[Tensor] | None = None, dst: int | None = None,
    group: ProcessGroup | None = None, async_op: bool = False, group_dst: int | None = None,
) -> Work | None:  # fmt: skip
    """Fill ``gather_list`` on rank ``dst`` (default 0) with every rank's ``tensor``."""
    found = _checked("gather", [tensor, *(gather_list or [])], group)
    root = group_dst if group_dst is not None else _position("gather", dst or 0, found)
    here = root == found.rank()
    if here:
        _one_each("gather", gather_list or [], found)
        _same_type("gather", gather_list or [], tensor)
    elif gather_list:
        raise GraphFlowError("gather: gather_list is for the rank that gathers")
    array = _contents(tensor)
    rows = np.empty((found.size(), *array.shape), array.dtype) if here else None
    pending = None
    if found.channel is not None:
        pending = found.channel.gather(array, rows, root)
    elif rows is not None:
        rows[0] = array

    def after() -> None:
        if rows is not None:
            _fill_all(gather_list or [], rows)

    return _finished(Work(pending, after), async_op)


def scatter(
    tensor: Tensor, scatter_list: list[Tensor] | None = None, src: int | None = None,
    group: ProcessGroup | None = None, async_op: bool = False, group_src: int | None = None,
) -> Work | None:  # fmt: skip
    """Give every rank its tensor of ``scatter_list``, which rank ``src`` (default 0) has."""
    found = _checked("scatter", [tensor, *(scatter_list or [])], group)
    root = group_src if group_src is not None else _position("scatter", src or 0, found)
    rows = None
    if root == found.rank():
        _one_each("scatter", scatter_list or [], found)
        _same_type("scatter", scatter_list or [], tensor)
        rows = np.stack([_contents(t) for t in scatter_list or []])
    elif scatter_list:
        raise GraphFlowError("scatter: scatter_list is for the rank that scatters")
    own = np.empty(tuple(tensor.shape), tensor.dtype.numpy)
    pending = None
    if found.channel is not None:
        pending = found.channel.scatter(rows, own, root)
    elif rows is not None:
        own[...] = rows[0]
    return _finished(Work(pending, lambda: _fill(tensor, own)), async_op)


def barrier(
    group: ProcessGroup | None = None, async_op: bool = False, device_ids: Any = None
) -> Work | None:
    """Return when all ranks have come here."""
    found = _checked("barrier", (), group)
    pending = None if found.channel is None else found.channel.barrier()
    return _finished(Work(pending, lambda: None), async_op)


# ---- one to one -----------------------------------------------------------------------------


def isend(
    tensor: Tensor, dst: int | None = None, group: ProcessGroup | None = None, tag: int = 0,
    group_dst: int | None = None,
) -> Work:  # fmt: skip
    """Begin to send ``tensor`` to rank ``dst``."""
    found = _checked("send", tensor, group)
    to = group_dst if group_dst is not None else _position("send", dst, found)
    if to == found.rank():
        raise GraphFlowError("send: the destination is this process itself")
    array = _contents(tensor)
    return Work(found.channel.send(array, to, tag), lambda: None)


def irecv(
    tensor: Tensor, src: int | None = None, group: ProcessGroup | None = None, tag: int = 0,
    group_src: int | None = None,
) -> Work:  # fmt: skip
    """Begin to fill ``tensor`` with what rank ``src`` sends."""
    found = _checked("recv", tensor, group)
    source = group_src if group_src is not None else _position("recv", src, found)
    if source == found.rank():
        raise GraphFlowError("recv: the source is this process itself")
    array = _contents(tensor)
    return Work(found.channel.receive(array, source, tag), lambda: _fill(tensor, array))


def send(
    tensor: Tensor, dst: int | None = None, group: ProcessGroup | None = None, tag: int = 0,
    group_dst: int | None = None,
) -> None:  # fmt: skip
    """Send ``tensor`` to rank ``dst``."""
    isend(tensor, dst, group, tag, group_dst).wait()


def recv(
    tensor: Tensor, src: int | None = None, group: ProcessGroup | None = None, tag: int = 0,
    group_src: int | None = None,
) -> int:  # fmt: skip
    """Fill ``tensor`` with what rank ``src`` sends; returns ``src``."""
    irecv(tensor, src, group, tag, group_src).wait()
    return src if src is not None else get_rank()


# ---- Python objects -------------------------------------------------------------------------


def all_gather_object(object_list: list[Any], obj: Any, group: ProcessGroup | None = None) -> None:
    """Fill ``object_list`` with every rank's ``obj`` (pickled by the ranks of this job alone)."""
    found = _checked("all_gather_object", (), group)
    for position, (text, size) in enumerate(_all_bytes(obj, found)):
        object_list[position] = _object(text[:size])


def broadcast_object_list(
    object_list: list[Any], src: int | None = None, group: ProcessGroup | None = None,
    device: Any = None, group_src: int | None = None,
) -> None:  # fmt: skip
    """Replace ``object_list`` by that of rank ``src`` (default 0)."""
    found = _checked("broadcast_object_list", (), group)
    root = group_src if group_src is not None else _position("broadcast", src or 0, found)
    text = _text(object_list) if found.rank() == root else np.empty(0, np.uint8)
    size = np.array([text.size], np.int64)
    if found.channel is not None:
        found.channel.broadcast(size, root).finish()
        if found.rank() != root:
            text = np.empty(int(size[0]), np.uint8)
        found.channel.broadcast(text, root).finish()
    object_list[:] = _object(text)


def _all_bytes(obj: Any, group: ProcessGroup) -> list[tuple[Array, int]]:
    text = _text(obj)
    if group.channel is None:
        return [(text, text.size)]
    sizes = np.empty((group.size(), 1), np.int64)
    group.channel.all_gather(np.array([text.size], np.int64), sizes).finish()
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: text.size] = text
    rows = np.empty((group.size(), padded.size), np.uint8)
    group.channel.all_gather(padded, rows).finish()
    return [(row, int(size)) for row, size in zip(rows, sizes[:, 0])]


def _text(obj: Any) -> Array:
    import pickle

    return np.frombuffer(pickle.dumps(obj), np.uint8).copy()


def _object(text: Array) -> Any:
    import pickle

    return pickle.loads(text.tobytes())
