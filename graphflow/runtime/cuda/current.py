"""Which device is in use, whether it can be, and work on a chosen one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from graphflow.codegen.cuda.toolchain import State, state, toolchain
from graphflow.errors import GraphFlowError


class Started:
    """``here``: whether CUDA was started; ``before``: by a process this one was forked from."""

    here = before = False


def _in_child() -> None:
    Started.here, Started.before = False, Started.here or Started.before


if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_in_child)


def require_device() -> State:
    """What kernels run on; an error that says what is missing if there is nothing."""
    found = state()
    if Started.before:
        raise GraphFlowError(
            "CUDA was in use before this process was forked, and a driver does not live on in "
            "a child: start it by multiprocessing.get_context('spawn'), or use CUDA in it only"
        )
    if not found.usable:
        raise GraphFlowError(
            f"CUDA cannot be used here: {found}. Kernels can be tried in the simulator: set "
            "NUMBA_ENABLE_CUDASIM=1 before Python starts"
        )
    Started.here = True
    return found


class _Chosen(threading.local):
    """The index of the device that a thread has chosen; the first at its start."""

    index = 0


_chosen = _Chosen()


def current() -> int:
    """The index of the device on which this thread allocates."""
    return _chosen.index


def choose(index: int) -> int:
    """Let this thread allocate on another device; the index of the one before."""
    before, _chosen.index = _chosen.index, index
    return before


@contextmanager
def chosen(index: int) -> Iterator[None]:
    """:func:`choose` for a while."""
    before = choose(index)
    try:
        yield
    finally:
        choose(before)


def on(index: int) -> AbstractContextManager[Any]:
    """A context in which the driver is asked on behalf of one device.

    With one device, and in the simulator, which has one context, there is nothing to change.
    """
    there = state()
    if there.simulated or len(there.devices) < 2:
        return nullcontext()
    return toolchain().cuda.gpus[index]  # type: ignore[no-any-return]
