"""Joining a job, leaving it, and groups of its ranks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any

from graphflow.distributed.board import posted
from graphflow.errors import GraphFlowError
from graphflow.ir.ops.collectives import use_transport
from graphflow.mode import structure
from graphflow.records import dataclass
from graphflow.runtime.end_to_end import expect as expect_laying
from graphflow.runtime.turns import share_compilation

BACKENDS = ("mpi", "gloo", "nccl")
DEFAULT_TIMEOUT = timedelta(seconds=30)
_STARTED_BY_MPI = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "MPI_LOCALNRANKS")


@dataclass(frozen=True, eq=False)
class ProcessGroup:
    """Some ranks of the job, in order; ``channel`` carries their messages (None: one rank)."""

    number: int
    ranks: tuple[int, ...]
    channel: Any = None

    def size(self) -> int:
        """How many ranks."""
        return len(self.ranks)

    def rank(self) -> int:
        """This process's position in the group, -1 if it is no member."""
        own = _world().rank
        return self.ranks.index(own) if own in self.ranks else -1


class GroupMember:
    """What :func:`new_group` gives to ranks that are no members."""

    NON_GROUP_MEMBER = ProcessGroup(-1, ())
    WORLD: ProcessGroup | None = None


@dataclass(slots=True)
class _World:
    rank: int
    size: int
    backend: str
    groups: list[ProcessGroup]
    watch: Any
    hook: Any


_joined: list[_World] = []


def _world() -> _World:
    if not _joined:
        raise GraphFlowError(
            "the process group is not initialised; call distributed.init_process_group() first"
        )
    return _joined[0]


def is_available() -> bool:
    """Whether this package can be used: always; more than one rank needs MPI."""
    return True


def is_mpi_available() -> bool:
    """Whether mpi4py is installed."""
    from importlib.util import find_spec

    return find_spec("mpi4py") is not None


def is_nccl_available() -> bool:
    """Whether a binding of NCCL is installed."""
    return False


def is_initialized() -> bool:
    """Whether this process has joined a job."""
    return bool(_joined)


def init_process_group(
    backend: str | None = None, init_method: str | None = None, timeout: Any = None,
    world_size: int = -1, rank: int = -1, store: Any = None, group_name: str = "",
    pg_options: Any = None, device_id: Any = None,
) -> None:  # fmt: skip
    """Join the job that ``graphflow launch`` (or ``mpiexec``) started this process in.

    ``backend``: ``"mpi"`` (``"gloo"`` means the same here).  A process that was started by
    itself is the only rank of its job, and needs no MPI.  ``timeout``: how long to wait for
    ranks that do not come to a collective, a timedelta or seconds, 30 s by default; a rank that
    compiles is not late.  ``world_size`` and ``rank`` are checked against MPI's; the arguments
    after them are accepted and mean nothing here.
    """
    if _joined:
        raise GraphFlowError("the process group is initialised already")
    backend = _backend(backend)
    limit = _seconds(timeout)
    if any(name in os.environ for name in _STARTED_BY_MPI):
        made = _join(backend, limit)
    else:
        _check_alone(world_size, rank)
        made = _World(0, 1, backend, [ProcessGroup(0, (0,))], None, None)
    _check_said(made, world_size, rank)
    _joined.append(made)
    GroupMember.WORLD = made.groups[0]
    structure.bump()


def _backend(name: str | None) -> str:
    chosen = (name or "mpi").lower()
    if ":" in chosen:  # "cpu:gloo,cuda:nccl"
        chosen = chosen.partition(":")[2].partition(",")[0]
    if chosen not in BACKENDS:
        raise GraphFlowError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")
    if chosen == "nccl":
        raise GraphFlowError(
            "backend 'nccl' needs a binding of NCCL, and none is supported yet; "
            "use 'mpi', which moves CUDA tensors by way of the CPU"
        )
    return chosen


def _seconds(timeout: Any) -> float:
    if timeout is None:
        timeout = DEFAULT_TIMEOUT
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else float(timeout)
    if not seconds > 0:
        raise GraphFlowError(f"a timeout should be positive, got {timeout!r}")
    return seconds


def _check_alone(world_size: int, rank: int) -> None:
    wanted = world_size if world_size > 0 else int(os.environ.get("WORLD_SIZE", "1") or 1)
    if wanted > 1 or rank > 0:
        raise GraphFlowError(
            f"this process was started alone, but should be one of {wanted} ranks; "
            f"start them with: graphflow launch -n {wanted} {sys.argv[0]}"
        )


def _check_said(made: _World, world_size: int, rank: int) -> None:
    if world_size > 0 and world_size != made.size:
        raise GraphFlowError(f"world_size={world_size}, but the job has {made.size} ranks")
    if rank >= 0 and rank != made.rank:
        raise GraphFlowError(f"rank={rank}, but this process is rank {made.rank}")


def _join(backend: str, timeout: float) -> _World:
    from graphflow.distributed.mpi import Channel, MpiTransport, Watch, mpi

    MPI = mpi()
    comm = MPI.COMM_WORLD.Dup()
    rank, size = int(comm.Get_rank()), int(comm.Get_size())
    if size == 1:
        return _World(0, 1, backend, [ProcessGroup(0, (0,))], None, None)
    crowded = size > len(os.sched_getaffinity(0))
    watch = Watch(rank, posted(), timeout, crowded)
    channel = Channel(comm, watch, whole=True)
    world = ProcessGroup(0, tuple(range(size)), channel)
    use_transport(MpiTransport({0: channel}, rank))
    expect_laying()
    board = posted()
    share_compilation(True, None if board is None else board.busy)
    hook = sys.excepthook
    if posted() is None:  # graphflow launch sees to it otherwise
        sys.excepthook = _abort_all(rank, MPI)
    return _World(rank, size, backend, [world], watch, hook)


def _abort_all(rank: int, MPI: Any) -> Any:
    """An exception hook that ends the whole job: the other ranks would wait for ever."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        traceback.print_exception(kind, error, trace)
        print(f"rank {rank} raised {kind.__name__}; the job ends", file=sys.stderr, flush=True)
        MPI.COMM_WORLD.Abort(1)

    return hook


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Leave the job (or give up ``group``)."""
    world = _world()
    if group is not None and group is not world.groups[0]:
        world.groups.remove(group)
        return
    use_transport(None)
    if world.hook is not None:
        share_compilation(False)
        sys.excepthook = world.hook
    _joined.clear()
    GroupMember.WORLD = None
    structure.bump()


def new_group(
    ranks: Sequence[int] | None = None, timeout: Any = None, backend: str | None = None,
    pg_options: Any = None, use_local_synchronization: bool = False,
    group_desc: str | None = None, device_id: Any = None,
) -> ProcessGroup:  # fmt: skip
    """A group of ``ranks`` (default: all); every rank of the job must call this, in one order."""
    world = _world()
    chosen = tuple(range(world.size)) if ranks is None else tuple(sorted(ranks))
    if (
        not chosen
        or len(set(chosen)) < len(chosen)
        or not 0 <= chosen[0] <= chosen[-1] < world.size
    ):
        raise GraphFlowError(f"ranks {list(chosen)} are no group of a job of {world.size}")
    number = len(world.groups)
    channel = None
    if world.size > 1:
        from graphflow.distributed.mpi import Channel, MpiTransport
        from graphflow.ir.ops.collectives import transport

        whole = world.groups[0].channel
        inside = world.rank in chosen
        comm = whole.comm.Split(0 if inside else 1, world.rank)
        if inside:
            channel = Channel(comm, world.watch, whole=False)
            carrier = transport()
            assert isinstance(carrier, MpiTransport)
            carrier.add(number, channel)
    made = ProcessGroup(number, chosen, channel)
    world.groups.append(made)
    return made if world.rank in chosen else GroupMember.NON_GROUP_MEMBER


def group_or_world(group: ProcessGroup | None) -> ProcessGroup:
    """The group meant; an error if this process is not in it."""
    world = _world()
    found = world.groups[0] if group is None else group
    if not isinstance(found, ProcessGroup):
        raise TypeError(f"group should be a ProcessGroup, got {type(found).__name__}")
    return found


def get_rank(group: ProcessGroup | None = None) -> int:
    """This process's rank in the job (or in ``group``; -1 outside it)."""
    return group_or_world(group).rank()


def get_world_size(group: ProcessGroup | None = None) -> int:
    """The number of ranks of the job (or of ``group``; -1 outside it)."""
    found = group_or_world(group)
    return found.size() if found.rank() >= 0 else -1


def get_backend(group: ProcessGroup | None = None) -> str:
    """The backend's name."""
    group_or_world(group)
    return _world().backend


def get_process_group_ranks(group: ProcessGroup | None) -> list[int]:
    """The job's ranks in ``group``, in order."""
    return list(group_or_world(group).ranks)


def get_global_rank(group: ProcessGroup, group_rank: int) -> int:
    """The job's rank of rank ``group_rank`` of ``group``."""
    return group.ranks[group_rank]


def get_group_rank(group: ProcessGroup, global_rank: int) -> int:
    """The rank in ``group`` of the job's rank ``global_rank``."""
    if global_rank not in group.ranks:
        raise GraphFlowError(f"rank {global_rank} is not in the group of ranks {list(group.ranks)}")
    return group.ranks.index(global_rank)
