"""What the ranks of a job compute together: an all-reduce in three records.

``all_reduce_start`` lays its operands end to end and sets the reduction off; it is an effect,
so it takes a token and returns the next one, which is also the *ticket* of what it began.
``all_reduce`` is the reduced vector, and what gradients pass through.  When gradients are done
with, it decomposes into ``all_reduce_wait``, which keeps no operand but the ticket; the schedule
puts it as late as it can, so that what comes between hides the messages.

Who carries the messages is set by :func:`use_transport`; without one a process is alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

import numpy as np

from graphflow.errors import DTypeError, GraphError, GraphFlowError
from graphflow.ir.op import (
    NON_DIFFERENTIABLE,
    Application,
    Array,
    Builder,
    Kind,
    OpDef,
    OpTests,
    RoomsWanted,
    Sample,
    register,
)
from graphflow.ir.ops.matrices import Types
from graphflow.ir.ops.rules import Attrs, spelled
from graphflow.ir.ops.shared_sums import BEGIN, FINISH
from graphflow.ir.types import DType, TensorType, dtype_named, int64

PAIRWISE = "pairwise_avg"
"""An average over ranks that are added up in the order of a binary tree, ``((0 + 1) + (2 + 3))``,
however the values travel."""
AVERAGES = ("avg", PAIRWISE)
REDUCTIONS = ("sum", *AVERAGES, "max", "min", "product")
_TOKEN = TensorType(int64, ())


class Transport(Protocol):
    """Carries collectives; every rank must start the same ones in the same order."""

    def start(
        self, arrays: Sequence[Array], reduce: str, group: int, finite: bool,
        parts: Sequence[TensorType] = (),
    ) -> int:  # fmt: skip
        """Begin to reduce the arrays, laid end to end, over a group; returns the ticket.

        Where they must be ``finite``, others are an error that names the rank, now or when they
        are waited for.  A single array may be what ``parts`` are, end to end.
        """

    def wait(self, ticket: int, into: Array | None = None) -> Array:
        """The reduced vector, which is the caller's until the next start of its size.

        It may lie in ``into``, a row-major vector of its type.
        """

    def rooms(self, wanted: RoomsWanted) -> Sequence[int] | None:
        """The addresses at which the vectors of the next starts save a copy, if there are such.

        The bytes before each are the head that kernels look at: see ``shared_sums.py``.
        """

    def carrier(self) -> str:
        """How the values travel, in words; nothing for a process by itself."""


class Alone:
    """The transport of a process without others: reductions over one rank."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._begun: dict[int, Array] = {}

    def start(
        self, arrays: Sequence[Array], reduce: str, group: int, finite: bool,
        parts: Sequence[TensorType] = (),
    ) -> int:  # fmt: skip
        """Lay the arrays end to end."""
        ticket = next(self._numbers)
        self._begun[ticket] = np.concatenate([np.ravel(a) for a in arrays])
        return ticket

    def wait(self, ticket: int, into: Array | None = None) -> Array:
        """What :meth:`start` was given."""
        return _taken(self._begun, ticket)

    def rooms(self, wanted: RoomsWanted) -> None:
        """Wherever the program likes."""

    def carrier(self) -> str:
        """Nothing."""
        return ""


def _taken(begun: dict[int, Array], ticket: int) -> Array:
    found = begun.pop(ticket, None)
    if found is None:
        raise GraphFlowError(f"all_reduce_wait: nothing has begun under ticket {ticket}")
    return found


_alone: Transport = Alone()
_transport: list[Transport] = [_alone]


def use_transport(transport: Transport | None) -> None:
    """Let ``transport`` carry what programs reduce from now on (None: this process is alone)."""
    _transport[:] = [_alone if transport is None else transport]


def transport() -> Transport:
    """Who carries collectives now."""
    return _transport[0]


# ---- type rules -----------------------------------------------------------------------------


def _operands(name: str, types: Types, attrs: Attrs) -> TensorType:
    """The type of the operands after the first, laid end to end."""
    said = spelled(name, types)
    if len(types) < 2 or types[0] != _TOKEN:
        raise DTypeError(f"{said}: takes a token, i64[], and at least one more operand")
    dtype, size = types[1].dtype, 0
    for type in types[1:]:
        if type.dtype is not dtype:
            raise DTypeError(f"{said}: operands have different dtypes; reduce them separately")
        if not type.is_static:
            raise GraphError(f"{said}: the size of what is reduced over ranks must be known")
        size += prod(type.static_shape)
    _check_reduction(said, dtype, attrs["reduce"])
    return TensorType(dtype, (size,))


def _check_reduction(said: str, dtype: DType, reduce: str) -> None:
    if reduce not in REDUCTIONS:
        raise GraphError(f"{said}: no reduction {reduce!r}; known: {', '.join(REDUCTIONS)}")
    if reduce in AVERAGES and not (dtype.is_floating_point or dtype.is_complex):
        raise DTypeError(f"{said}: an average needs floating-point operands; use a sum")
    if reduce in ("max", "min") and dtype.is_complex:
        raise DTypeError(f"{said}: complex numbers have no {reduce}")


def _infer_start(types: Types, attrs: Attrs) -> TensorType:
    _operands("all_reduce_start", types, attrs)
    return _TOKEN


def _infer_reduced(types: Types, attrs: Attrs) -> TensorType:
    return _operands("all_reduce", types, attrs)


def _infer_wait(types: Types, attrs: Attrs) -> TensorType:
    if list(types) != [_TOKEN]:
        raise DTypeError(f"{spelled('all_reduce_wait', types)}: takes a ticket, i64[]")
    return TensorType(dtype_named(attrs["dtype"]), (attrs["size"],))


# ---- meanings -------------------------------------------------------------------------------


def _start(
    token: Array, *values: Array, reduce: str, group: int, finite: bool,
    parts: Sequence[TensorType] = (), into: Array | None = None,
) -> Array:  # fmt: skip
    ticket = transport().start(values, reduce, group, finite, parts)
    if into is None:
        return np.array(ticket, np.int64)
    into[()] = ticket
    return into


def _rooms(wanted: RoomsWanted) -> Sequence[int] | None:
    return transport().rooms(wanted)


def _reduced(ticket: Array, *values: Array, reduce: str, group: int) -> Array:
    return np.array(transport().wait(int(ticket)))


def _wait(ticket: Array, *, size: int, dtype: str, into: Array | None = None) -> Array:
    return transport().wait(int(ticket), into)


def _vjp(b: Builder, n: Application, ct: Any, position: int) -> Any:
    """Each rank's operand adds to the results of all: its cotangent is the sum of theirs."""
    if position == 0:
        return None
    reduce, group = n.attrs["reduce"], n.attrs["group"]
    if reduce not in ("sum", *AVERAGES):
        raise GraphFlowError(f"all_reduce: a {reduce} over ranks has no gradient; use a sum")
    ticket = b.all_reduce_start(n.inputs[0], ct, reduce=reduce, group=group, finite=False)
    whole = b.all_reduce(ticket, ct, reduce=reduce, group=group)
    shapes = [tuple(x.shape) for x in n.inputs[1:]]
    start = sum(map(prod, shapes[: position - 1]))
    shape = shapes[position - 1]
    part = b.slice(whole, starts=(start,), limits=(start + prod(shape),), steps=(1,))
    return b.reshape(part, shape=shape)


def _as_wait(b: Builder, n: Application) -> Any:
    flat = _operands("all_reduce", [x.type for x in n.inputs], n.attrs)
    return b.all_reduce_wait(n.inputs[0], size=flat.shape[0], dtype=flat.dtype.short)


def _sample(*values: Array, **attrs: Any) -> OpTests:
    token = np.array(0, np.int64)
    return OpTests(dtypes=(), samples=(Sample((token, *values), attrs),), gradient=False)


START = register(
    OpDef(
        name="all_reduce_start",
        kind=Kind.OPAQUE,
        summary="Begins to reduce the operands after the token over the ranks of a group.",
        infer=_infer_start,
        reference=_start,
        vjp=NON_DIFFERENTIABLE,
        fills=True,
        rooms=_rooms,
        attempt=BEGIN,
        pure=False,
        early=True,
        cost=1000.0,
        tests=_sample(np.ones(3), reduce="sum", group=0, finite=False),
    )
)
ALL_REDUCE = register(
    OpDef(
        name="all_reduce",
        kind=Kind.OPAQUE,
        summary="The operands after the ticket, laid end to end and reduced over the ranks.",
        infer=_infer_reduced,
        reference=_reduced,
        vjp=_vjp,
        decompose=_as_wait,
        pure=False,
        cost=1000.0,
        tests=_sample(np.ones(3), np.ones((2, 2)), reduce="avg", group=0),
    )
)
WAIT = register(
    OpDef(
        name="all_reduce_wait",
        kind=Kind.OPAQUE,
        summary="Waits for the reduction that a ticket stands for; as late as possible.",
        infer=_infer_wait,
        reference=_wait,
        fills=True,
        attempt=FINISH,
        vjp=NON_DIFFERENTIABLE,
        pure=False,
        late=True,
        cost=1000.0,
        tests=_sample(size=3, dtype="f32"),
    )
)
