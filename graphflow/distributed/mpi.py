"""MPI as the engine: mpi4py's non-blocking collectives, waited for with an eye on the others.

Gradients of ranks that share memory go through that instead (:mod:`graphflow.distributed.shared`).

Everything is started in the order it is called for, which must be the same on every rank.
Nothing blocks inside MPI, so a wait can be interrupted, times out, and says whom it is for.
Messages advance while somebody waits or starts another; ``MPICH_ASYNC_PROGRESS=1`` makes MPICH
do it all the time, on a thread that wants a core of its own.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any, TypeAlias

import numpy as np

from graphflow.distributed.ahead import LOOKS, Group, Vector, Wait
from graphflow.distributed.board import Board, Entry, Stage, description
from graphflow.distributed.messages import InPairs, Message, accumulated, gather
from graphflow.distributed.shared import Ring, Sum, create, join
from graphflow.errors import GraphFlowError
from graphflow.ir.op import Array, RoomOf, RoomsWanted
from graphflow.ir.ops.collectives import AVERAGES, PAIRWISE
from graphflow.ir.types import TensorType, from_numpy_dtype
from graphflow.runtime.end_to_end import lay_end_to_end
from graphflow.runtime.storage import address_of

_LOOK_SECONDS = 0.2
_SPIN_SECONDS = 0.25
_BLAME_SECONDS = 0.5
"""By how much the rank at fault is the first to raise: the job is said to end for its sake."""
_SMALLEST_RING = 1 << 20
_LARGEST_ROOMS = 1 << 26
"""Gradients of a step that are made where other ranks read them are fewer bytes: rows have room
for two steps of those, but otherwise for two buckets."""


def mpi() -> Any:
    """The module ``mpi4py.MPI``; importing it joins the job.  An error if it is not installed."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise GraphFlowError(
            f"training on several processes needs MPI ({error}); "
            "install it with: pip install 'graphflow[distributed]'"
        ) from None
    return MPI


class Watch:
    """Waits for requests, and finds out what is wrong when they take long."""

    def __init__(self, rank: int, board: Board | None, timeout: float, crowded: bool) -> None:
        self.rank, self.board, self.timeout = rank, board, timeout
        self.crowded = crowded

    def come_to(self, what: str, whole: bool) -> int:
        """Say what this rank does next; its number, 0 for what only some ranks take part in."""
        return self.board.come_to(what) if self.board is not None and whole else 0

    @property
    def seen(self) -> int:
        """The number of the last collective that this rank has come to."""
        return self.board.seen if self.board is not None else 0

    def complete(self, request: Any, what: str, number: int) -> None:
        """Return when ``request`` is done; raise if it cannot be, or not in time."""
        try:
            self._complete(request, what, number)
            self._check_alike(what, number)
        except GraphFlowError:
            raise
        except Exception as error:  # mpi4py's own, which another rank's mistake can cause
            self._look(what, number)
            raise GraphFlowError(f"rank {self.rank}: {what} failed: {error}") from error

    def _complete(self, request: Any, what: str, number: int) -> None:
        test = request.Test
        for _ in range(1 if self.crowded else 100):
            if test():
                return
        began = late = look = time.monotonic()
        while not test():
            now = time.monotonic()
            if now - look > _LOOK_SECONDS:
                look = now
                if self._look(what, number):
                    late = now  # somebody compiles: that is no delay
                if now - late > self.timeout:
                    raise GraphFlowError(self._overdue(what, number))
            if self.crowded:
                os.sched_yield()
            if now - began > _SPIN_SECONDS:
                time.sleep(2e-4)

    def _look(self, what: str, number: int) -> bool:
        """Raise if a rank will never come; whether one of those missing is compiling."""
        busy = False
        for other in self._missing(number):
            if other.stage is Stage.ENDED:
                raise GraphFlowError(
                    f"rank {other.rank} has ended, but rank {self.rank} waits for it in {what} "
                    f"(collective {number}; rank {other.rank} took part in {other.seen}): "
                    "every rank must run the same number of steps"
                )
            busy = busy or other.stage is Stage.COMPILING
        self._check_alike(what, number)
        return busy

    def _check_alike(self, what: str, number: int) -> None:
        """Raise if another rank's collective of this number is not the same."""
        found = self.board.astray(number) if self.board is not None and number else None
        if found is not None:
            raise GraphFlowError(
                f"rank {found[0]} is in {found[1]} while rank {self.rank} is in {what} "
                f"(collective {number}): every rank must call the same collectives on the "
                "same shapes in the same order"
            )

    def _missing(self, number: int) -> list[Entry]:
        if self.board is None or not number:
            return []
        return [other for other in self.board.others() if other.seen < number]

    def _overdue(self, what: str, number: int) -> str:
        late = self._missing(number)
        limit = f"{self.timeout:g} s"
        advice = "pass a longer timeout= to init_process_group if that is expected"
        if not late:
            return f"rank {self.rank} has waited {limit} in {what} for the other ranks; {advice}"
        names = ", ".join(
            f"rank {o.rank} (in {o.what}, collective {o.seen})" if o.seen else f"rank {o.rank}"
            for o in late
        )
        verb = "has" if len(late) == 1 else "have"
        return f"{names} {verb} not come to {what} (collective {number}) for {limit}; {advice}"


class Channel:
    """Collectives over one communicator, on arrays; every call returns when it is done."""

    def __init__(self, comm: Any, watch: Watch, whole: bool) -> None:
        self.comm, self._watch, self._whole = comm, watch, whole
        self.rank, self.size = int(comm.Get_rank()), int(comm.Get_size())
        self._ring: Ring | None = None
        self.apart = ""
        """Why the ranks share no memory, once that is known."""

    def begin(self, what: str, start: Any, *args: Any, **kwargs: Any) -> Pending:
        """Start a non-blocking call and return what waits for it."""
        number = self._watch.come_to(what, self._whole)
        return Pending(start(*args, **kwargs), self._watch, what, number)

    def reduce_in_place(self, array: Array, reduce: str, root: int | None = None) -> Pending:
        """Begin to reduce contiguous ``array`` where it lies, on all ranks or on ``root`` alone."""
        MPI, what = mpi(), f"{'all_reduce' if root is None else 'reduce'} of {describe(array)}"
        how = _operation(MPI, reduce, array)
        if root is None:
            return self.begin(what, self.comm.Iallreduce, MPI.IN_PLACE, array, op=how)
        if self.rank == root:
            return self.begin(what, self.comm.Ireduce, MPI.IN_PLACE, array, op=how, root=root)
        return self.begin(what, self.comm.Ireduce, array, None, op=how, root=root)

    def broadcast(self, array: Array, root: int) -> Pending:
        """Begin to fill contiguous ``array`` with ``root``'s."""
        return self.begin(
            f"broadcast of {describe(array)}", self.comm.Ibcast, as_bytes(array), root=root
        )

    def all_gather(self, array: Array, into: Array) -> Pending:
        """Begin to fill ``into``, one row a rank, with every rank's ``array``."""
        return self.begin(
            f"all_gather of {describe(array)}",
            self.comm.Iallgather, as_bytes(array), as_bytes(into),
        )  # fmt: skip

    def gather(self, array: Array, into: Array | None, root: int) -> Pending:
        """Begin to fill ``into`` on ``root`` with every rank's ``array``."""
        target = None if into is None else as_bytes(into)
        return self.begin(
            f"gather of {describe(array)}", self.comm.Igather, as_bytes(array), target, root=root
        )

    def scatter(self, rows: Array | None, into: Array, root: int) -> Pending:
        """Begin to give every rank its row of ``rows``."""
        source = None if rows is None else as_bytes(rows)
        return self.begin(
            f"scatter of {describe(into)}", self.comm.Iscatter, source, as_bytes(into), root=root
        )

    def reduce_scatter(self, rows: Array, into: Array, reduce: str) -> Pending:
        """Begin to reduce ``rows`` and give every rank its row."""
        return self.begin(
            f"reduce_scatter of {describe(into)}", self.comm.Ireduce_scatter_block,
            rows, into, op=_operation(mpi(), reduce, rows),
        )  # fmt: skip

    def barrier(self) -> Pending:
        """Begin to wait for all."""
        return self.begin("barrier", self.comm.Ibarrier)

    def send(self, array: Array, to: int, tag: int) -> Pending:
        """Begin to send contiguous ``array``."""
        return self._message(f"send to rank {to}", self.comm.Isend, as_bytes(array), to, tag)

    def receive(self, array: Array, source: int, tag: int) -> Pending:
        """Begin to fill contiguous ``array`` with what ``source`` sends."""
        return self._message(
            f"recv from rank {source}", self.comm.Irecv, as_bytes(array), source, tag
        )

    def _message(self, what: str, start: Any, *args: Any) -> Pending:
        return Pending(start(*args), self._watch, what, 0)

    def scale(self, reduce: str) -> float:
        """What a sum of all ranks is multiplied by to get what is wanted."""
        return 1.0 / self.size if reduce in AVERAGES else 1.0

    def number_of(self, place: int) -> int:
        """The rank of the job that is at ``place`` of this communicator."""
        world, group = mpi().COMM_WORLD.Get_group(), self.comm.Get_group()
        (found,) = mpi().Group.Translate_ranks(group, [place], world)
        return int(found)

    # ---- shared memory ----------------------------------------------------------------------

    def ring(self, wanted: int) -> Ring | None:
        """Memory of all ranks for ``wanted`` bytes of vectors; None where they share none.

        All ranks come here together, with the same number.  As many again have room, so
        that a rank need not wait until the last one has been read.
        """
        if self.size == 1:
            return None
        if not self.apart and (self._ring is None or 2 * wanted > self._ring.capacity):
            self._meet(max(_SMALLEST_RING, -(-2 * wanted // 4096) * 4096))
        return self._ring

    def carrier(self) -> str:
        """How sums travel; nothing before the first one."""
        if self.apart:
            return f"MPI carries the sums of {self.size} ranks: no shared memory, {self.apart}"
        return "" if self._ring is None else f"{self.size} ranks add up in memory that they share"

    def waiting(self, what: str) -> Wait:
        """This rank comes to ``what``; how it waits for what others have to do with that."""
        number = self._watch.come_to(what, self._whole)
        return lambda request: self._watch.complete(request, what, number)

    def group(self, vectors: Sequence[Vector]) -> Group | None:
        """What a program will reduce in every run; None if it is too large to be kept ready."""
        watch, board = self._watch, self._watch.board if self._whole else None

        def waits(what: str, number: int) -> Wait:
            return partial(watch.complete, what=what, number=number)

        words = board.words_for(1 - self.rank) if board is not None and self.size == 2 else ()
        found = Group(vectors, waits, words, description, 1 if watch.crowded else LOOKS)
        return found if found.bytes <= _LARGEST_ROOMS else None

    def rooms(self, group: Group) -> Sequence[int] | None:
        """The addresses of the next vectors of a program in memory that is shared."""
        ring = self.ring(group.bytes)
        return None if ring is None else ring.ahead(group, self._settled)

    def begun_at(self, head: int) -> Sum | None:
        """The sum that a kernel began, whose head is there."""
        return None if self._ring is None else self._ring.begun_at(head)

    def _settled(self, request: Any) -> None:
        """Wait for others to be done with what this rank is done with."""
        self._watch.complete(request, "an all_reduce after the last", self._watch.seen)

    def _meet(self, capacity: int) -> None:
        """Make rows of ``capacity`` bytes on rank 0 and map them on all, or learn why not."""
        if self._ring is not None:
            self._ring.finish_all()
            self._ring = None
        size, memory, descriptor, why = Ring.bytes(capacity, self.size), None, -1, ""
        try:
            if self.rank == 0:
                descriptor, memory = create(size)
        except OSError as error:
            why = str(error)
        place = np.array([os.getpid(), descriptor])
        self.broadcast(place, 0).finish()
        try:
            if self.rank and place[1] >= 0:
                memory = join(int(place[0]), int(place[1]), size)
        except OSError as error:
            why = str(error)
        reasons = np.zeros((self.size, 200), np.uint8)
        own = np.frombuffer(why.encode()[:200].ljust(200, b"\0"), np.uint8)
        self.all_gather(own, reasons).finish()
        if descriptor >= 0:
            os.close(descriptor)
        said = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in reasons]
        self.apart = next((f"rank {rank}: {why}" for rank, why in enumerate(said) if why), "")
        if memory is not None and not self.apart:
            # MPI's own messages must go on while this rank waits for memory.
            self._ring = Ring(memory, capacity, self.rank, self.size, self.comm.Iprobe)


class Pending:
    """Something that goes on by itself; :meth:`finish` waits for it."""

    __slots__ = ("_number", "_request", "_watch", "_what")

    def __init__(self, request: Any, watch: Watch, what: str, number: int) -> None:
        self._request, self._watch, self._what, self._number = request, watch, what, number

    def advance(self) -> bool:
        """Let messages move; whether all have arrived."""
        return bool(self._request.Test())

    def finish(self) -> None:
        """Return when it is done."""
        self._watch.complete(self._request, self._what, self._number)


def describe(array: Array) -> str:
    """``f32[3,4]``."""
    return f"{from_numpy_dtype(array.dtype).short}[{','.join(map(str, array.shape))}]"


def as_bytes(array: Array) -> Array:
    """The bytes of contiguous ``array``: what is moved needs no type."""
    return array.reshape(-1).view(np.uint8)


def _operation(MPI: Any, reduce: str, array: Array) -> Any:
    if array.dtype == np.bool_:
        return MPI.LAND if reduce in ("min", "product") else MPI.LOR
    return {"sum": MPI.SUM, "avg": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN,
            "product": MPI.PROD}[reduce]  # fmt: skip


class MpiTransport:
    """Carries the all-reduces of programs: operands go straight into one vector a reduction."""

    def __init__(self, channels: dict[int, Channel], rank: int) -> None:
        self._channels, self._rank = channels, rank
        self._numbers = itertools.count(1)
        self._begun: dict[int, _Begun] = {}
        self._spare: dict[tuple[Any, int], list[Array]] = {}

    def start(
        self, arrays: Sequence[Array], reduce: str, group: int, finite: bool,
        parts: Sequence[TensorType] = (),
    ) -> int:  # fmt: skip
        """Begin; see :class:`graphflow.ir.ops.collectives.Transport`."""
        channel = self._channels.get(group)
        if channel is None:
            raise GraphFlowError(f"all_reduce: this process has no process group {group}")
        for begun, *_ in self._begun.values():
            begun.advance()
        size = arrays[0].size if len(arrays) == 1 else sum(a.size for a in arrays)
        made = self._room(channel, size, arrays[0].dtype, reduce, finite)
        if not (isinstance(made, Sum) and _is_there(arrays, made, finite)):
            scale = channel.scale(reduce) if isinstance(made, Message) else 1.0
            self._lay(arrays, scale, made, finite, parts)
        made.publish()
        ticket = next(self._numbers)
        self._begun[ticket] = made, channel, arrays, parts
        return ticket

    def _lay(
        self, arrays: Sequence[Array], scale: float, made: Message | Sum, finite: bool,
        parts: Sequence[TensorType],
    ) -> None:  # fmt: skip
        """Put the arrays where they go, times ``scale``; an error if they should be finite."""
        sound = lay_end_to_end(arrays, scale, made.own)
        if sound is None:
            with np.errstate(all="ignore"):
                gather(arrays, scale, made.own)
                sound = not finite or bool(np.isfinite(np.add.reduce(made.own)))
        if finite and not sound and not (isinstance(made, Sum) and made.looks):
            _check(self._rank, made.own, _shapes(arrays, parts))

    def rooms(self, wanted: RoomsWanted) -> Sequence[int] | None:
        """See :class:`graphflow.ir.ops.collectives.Transport`."""
        channel = self._channels.get(wanted.vectors[0][1]["group"])
        if channel is None:
            return None
        if wanted.plan is None or wanted.plan[0] is not channel:
            wanted.plan = channel, self._group(channel, wanted.vectors)
        group: Group | None = wanted.plan[1]
        return None if group is None else channel.rooms(group)

    def _group(self, channel: Channel, vectors: Sequence[RoomOf]) -> Group | None:
        """The vectors of a program, if all are of ``channel`` and travel as they are."""
        found = []
        for type, attrs, parts in vectors:
            dtype, reduce = type.dtype.numpy, attrs["reduce"]
            if self._channels.get(attrs["group"]) is not channel or dtype != accumulated(dtype):
                return None
            scale, finite = channel.scale(reduce), attrs["finite"]
            found.append(Vector(type.static_shape[0], dtype, reduce, scale, finite, parts))
        return channel.group(found)

    def carrier(self) -> str:
        """See :class:`graphflow.ir.ops.collectives.Transport`."""
        return "; ".join(c.carrier() for c in self._channels.values() if c.carrier())

    def add(self, number: int, channel: Channel) -> None:
        """Let programs reduce over group ``number``, too."""
        self._channels[number] = channel

    def _room(
        self, channel: Channel, size: int, dtype: Any, reduce: str, finite: bool
    ) -> Message | Sum:
        """A reduction of ``size`` values whose vector is to be filled."""
        dtype = accumulated(dtype)
        vector = Vector(size, dtype, reduce, channel.scale(reduce), finite)
        ring = channel.ring(vector.room)
        if ring is not None:
            return ring.begin(vector, channel.waiting(vector.what))
        spare = self._spare.get((dtype, size))
        own = spare.pop() if spare else np.empty(size, dtype)
        return (InPairs if reduce == PAIRWISE else Message)(channel, own, reduce)

    def wait(self, ticket: int, into: Array | None = None) -> Array:
        """Finish; see :class:`graphflow.ir.ops.collectives.Transport`."""
        begun = self._begun.pop(ticket, None) or self._begun_by_kernel(ticket)
        if begun is None:
            raise GraphFlowError(f"all_reduce_wait: nothing has begun under ticket {ticket}")
        made, channel, arrays, parts = begun
        dtype = arrays[0].dtype
        vector = made.finish(into if into is not None and into.dtype == made.own.dtype else None)
        if isinstance(made, Sum) and made.faults:
            self._blame(channel, *made.faults[0], _shapes(arrays, parts))
        if isinstance(made, Message):
            self._spare.setdefault((vector.dtype, vector.size), []).append(vector)
        if vector.dtype == dtype:
            return vector
        with np.errstate(over="ignore"):
            return vector.astype(dtype)

    def _begun_by_kernel(self, ticket: int) -> _Begun | None:
        """The reduction whose ticket says where its head is."""
        for channel in self._channels.values():
            made = channel.begun_at(-ticket)
            if made is not None:
                return made, channel, [made.own], made.vector.parts
        return None

    def _blame(
        self, channel: Channel, place: int, vector: Array, shapes: Sequence[tuple[int, ...]]
    ) -> None:
        """Raise on every rank for what the one at ``place`` of the group has."""
        rank = channel.number_of(place)
        if rank != self._rank:
            time.sleep(_BLAME_SECONDS)
        _check(rank, vector, shapes)


_Begun: TypeAlias = "tuple[Message | Sum, Channel, Sequence[Array], Sequence[TensorType]]"
"""A reduction under way: of which arrays, the only one perhaps of such parts."""


def _shapes(arrays: Sequence[Array], parts: Sequence[TensorType]) -> list[tuple[int, ...]]:
    """The shapes of what lies end to end."""
    return [type.static_shape for type in parts] or [a.shape for a in arrays]


def _is_there(arrays: Sequence[Array], made: Sum, finite: bool) -> bool:
    """Whether the values were made where they go, and need not be looked at now."""
    there = len(arrays) == 1 and address_of(arrays[0]) == made.address
    return there and (made.looks or not finite)


def _check(rank: int, vector: Array, shapes: Sequence[tuple[int, ...]]) -> None:
    """Raise if the gradients of ``rank``, end to end, have NaN or infinity."""
    begin = 0
    for number, shape in enumerate(shapes):
        array = vector[begin : begin + prod(shape)].reshape(shape)
        begin += array.size
        if not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            raise GraphFlowError(
                f"rank {rank}: {kind} in gradient {number} of {len(shapes)} of a bucket, "
                f"{describe(array)}, before it is reduced over the ranks "
                "(DistributedDataParallel(check_finite=False) lets it pass)"
            )
