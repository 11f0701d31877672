"""Which device is in use, whether it can be, and work on a chosen one."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from graphflow.codegen.cuda.toolchain import State, state, toolchain
from graphflow.errors import DeviceLostError, GraphFlowError


class Started:
    """``here``: whether CUDA was started; ``before``: by a process this one was forked from.

    ``dead``: what is said of a device whose context a kernel has ended, if one has.
    """

    here = before = False
    dead = ""


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
    if Started.dead:
        raise DeviceLostError(Started.dead)
    if not found.usable:
        raise GraphFlowError(
            f"CUDA cannot be used here: {found}. Kernels can be tried in the simulator: set "
            "NUMBA_ENABLE_CUDASIM=1 before Python starts"
        )
    Started.here = True
    return found


class _Chosen(threading.local):
    """The index of the device that a thread has chosen, the first at its start; and whether the
    driver has a context for the thread."""

    index, ready = 0, False


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


_FATAL = re.compile(
    "CUDA_ERROR_(ILLEGAL_ADDRESS|ILLEGAL_INSTRUCTION|MISALIGNED_ADDRESS|INVALID_ADDRESS_SPACE|"
    "INVALID_PC|LAUNCH_FAILED|LAUNCH_TIMEOUT|ASSERT|HARDWARE_STACK_ERROR|ECC_UNCORRECTABLE|"
    "CONTEXT_IS_DESTROYED)"
)
"""What a driver says from then on to everything, once a kernel has faulted."""


class on(AbstractContextManager[None]):
    """A context in which the driver is asked on behalf of one device.

    With one device, and in the simulator, which has one context, nothing is switched.  Raises
    :class:`DeviceLostError` in place of an error that says that a kernel has faulted.
    """

    __slots__ = ("_index", "_switched")

    def __init__(self, index: int) -> None:
        self._index = index
        there = state()
        several = not there.simulated and len(there.devices) > 1
        self._switched: Any = toolchain().cuda.gpus[index] if several else None
        if not _chosen.ready and not there.simulated:
            toolchain().cuda.current_context()  # which the driver's own calls do not make
            _chosen.ready = True

    def __enter__(self) -> None:
        if self._switched is not None:
            self._switched.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        found = None if error is None else _FATAL.search(str(error))
        if found is not None and not isinstance(error, GraphFlowError):
            Started.dead = (
                f"a kernel on cuda:{self._index} has faulted ({found[0]}), at this call or before "
                "it: what was on the device is lost, and this process cannot use it any more. "
                "gf.verify(step, *inputs, device='cuda') looks for the kernel, compute-sanitizer "
                "for the instruction"
            )
            raise DeviceLostError(Started.dead) from error
        if self._switched is not None:
            self._switched.__exit__(kind, error, trace)
