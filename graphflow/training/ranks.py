"""Where this process stands in its job, and what one rank decides for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphflow import distributed
from graphflow.distributed.board import posted
from graphflow.errors import GraphFlowError


def place() -> tuple[int, int]:
    """This process's rank and the number of ranks; a process by itself is rank 0 of 1."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@contextmanager
def busy() -> Iterator[None]:
    """A stretch for which the other ranks wait as they wait for one that compiles."""
    board = posted()
    if board is None:
        yield
        return
    board.busy(True)
    try:
        yield
    finally:
        board.busy(False)


def decided(decide: Callable[[], Any]) -> Any:
    """What ``decide`` gives (or raises, as a GraphFlowError) on rank 0, on every rank."""
    rank, size = place()
    answer: list[Any] = [None, None]
    if rank == 0:
        with busy():
            try:
                answer[0] = decide()
            except GraphFlowError as error:
                if size == 1:
                    raise
                answer[1] = str(error)
    if size > 1:
        distributed.broadcast_object_list(answer)
    if answer[1] is not None:
        raise GraphFlowError(answer[1])
    return answer[0]
