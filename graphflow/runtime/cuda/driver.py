"""The driver's own calls, where they can be reached: copies and launches without a detour.

numba-cuda offers copies between slices of its arrays, which are made and checked anew each time:
a fifth of a millisecond.  Its package brings the driver's calls (``cuda.bindings``), which take
addresses.  The simulator and other targets have none.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from graphflow.codegen.cuda.toolchain import is_simulated, toolchain
from graphflow.errors import GraphFlowError

Start = Callable[[Any], None]
"""Starts a kernel on the stream that it is given (0: the default one)."""
BINDING = "cuda.bindings.driver"
OLDEST = 12000
"""The driver's version from which on its calls are as they are used here."""
STREAM = 0
"""The legacy default stream, on which all of our work is."""


class Driver:
    """The calls of ``cuda.bindings.driver``.

    All raise :class:`GraphFlowError`, with the driver's name for what went wrong.
    """

    def __init__(self) -> None:
        self.calls: Any = importlib.import_module(BINDING)

    def asked(self, name: str, *arguments: Any) -> Any:
        """What call ``name`` answers beside its status."""
        status, *answers = getattr(self.calls, name)(*arguments)
        if status != self.calls.CUresult.CUDA_SUCCESS:
            raise GraphFlowError(f"{name}: {getattr(status, 'name', status)}")
        return answers[0] if answers else None

    def copy(self, target: int, source: int, nbytes: int) -> None:
        """Copy from one address on the device to another, in the order of its work."""
        self.asked("cuMemcpyDtoDAsync", target, source, nbytes, STREAM)

    def fill(self, target: int, source: int, nbytes: int, locked: bool) -> None:
        """Copy from the host to the device; what is at ``source`` may change afterwards.

        Ordinary memory is read before the driver returns, without waiting for earlier work;
        page-locked memory is not, so that is waited for.
        """
        if locked:
            self.asked("cuMemcpyHtoD", target, source, nbytes)
        else:
            self.asked("cuMemcpyHtoDAsync", target, source, nbytes, STREAM)

    def fetch(self, target: int, source: int, nbytes: int) -> None:
        """Copy from the device to the host, after all work before it."""
        self.asked("cuMemcpyDtoH", target, source, nbytes)


@cache
def _reached() -> Driver | str:
    """The driver's calls, or why they cannot be had here."""
    if is_simulated():
        return "the simulator has no driver"
    package = toolchain().package
    if package != "numba-cuda":
        return f"the driver's calls come with numba-cuda, not with {package}"
    try:
        found = Driver()
        version = found.asked("cuDriverGetVersion")
    except (ImportError, RuntimeError, GraphFlowError) as error:
        return f"the driver's calls cannot be reached ({' '.join(str(error).split())})"
    if version < OLDEST:
        return f"the driver is too old ({_spelled(version)}, {_spelled(OLDEST)} is needed)"
    return found


def _spelled(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


@cache
def direct() -> Driver | None:
    """The driver's calls; None where there are none, which :func:`missing` tells the reason of."""
    found = _reached()
    return None if isinstance(found, str) else found


def missing() -> str:
    """Why the driver cannot be called directly, as graphs and libraries must; empty if it can."""
    found = _reached()
    return found if isinstance(found, str) else ""
