"""CUDA graphs by the driver's own calls: launches that are recorded once and replayed.

Recording is stream capture: kernels are launched into a stream that only takes note of them.
It needs a GPU; the simulator has no streams.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from graphflow.runtime.cuda.current import on
from graphflow.runtime.cuda.driver import STREAM, Driver, Start


class Recorder:
    """What makes graphs on one device.

    Raises :class:`GraphFlowError`, with the driver's name for what went wrong, wherever a call
    of the driver does.
    """

    def __init__(self, device: int) -> None:
        self.device = device
        reached = Driver()
        self._asked, self.driver = reached.asked, reached.calls
        flags = self.driver.CUstream_flags
        # One that blocks would make work on the default stream end the capture.
        self._stream = self._asked("cuStreamCreate", int(flags.CU_STREAM_NON_BLOCKING))

    def record(self, starts: Sequence[Start]) -> Callable[[], None]:
        """A function that does, on the default stream, what ``starts`` do, one after the other.

        Nothing runs while it is recorded.  Kernels must have been loaded before, and no memory
        may be allocated or read.
        """
        driver = self.driver
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        with on(self.device):
            self._asked("cuStreamBeginCapture", self._stream, mode)
            try:
                for start in starts:
                    start(self._stream)
            except BaseException:
                driver.cuStreamEndCapture(self._stream)  # whose graph is not wanted any more
                raise
            graph = self._asked("cuStreamEndCapture", self._stream)
            try:
                made = self._asked("cuGraphInstantiate", graph, 0)
            finally:
                driver.cuGraphDestroy(graph)
        return _Graph(self, made).launch

    def launch(self, graph: Any) -> None:
        """Start a graph on the default stream."""
        with on(self.device):
            self._asked("cuGraphLaunch", graph, STREAM)


class _Graph:
    """A graph that can be launched; it is destroyed with the last reference."""

    def __init__(self, recorder: Recorder, handle: Any) -> None:
        self._recorder, self._handle = recorder, handle
        weakref.finalize(self, recorder.driver.cuGraphExecDestroy, handle).atexit = False

    def launch(self) -> None:
        """Start it."""
        self._recorder.launch(self._handle)


@cache
def recorder(device: int) -> Recorder:
    """The recorder of a device."""
    return Recorder(device)
