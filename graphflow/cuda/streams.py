"""Streams and events by PyTorch's names.

All work on a device is done in the order in which it is asked for, on one stream.  So every
``Stream`` is that one, and what orders streams has nothing to do; events measure.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from graphflow.codegen.cuda.toolchain import is_simulated, toolchain
from graphflow.cuda.devices import synchronize
from graphflow.errors import GraphFlowError
from graphflow.runtime.cuda.current import require_device


class Event:
    """A moment in the order of a device's work.

    With ``enable_timing`` two of them tell the milliseconds between; the simulator's clock
    stands still.
    """

    def __init__(self, enable_timing: bool = False, **_: Any) -> None:
        require_device()
        self._timed = enable_timing
        self._event = toolchain().cuda.event()
        self._recorded = False

    def record(self, stream: Stream | None = None) -> None:
        """The moment when all work so far will be done."""
        self._event.record()
        self._recorded = True

    def wait(self, stream: Stream | None = None) -> None:
        """Nothing to do: later work is done later."""

    def query(self) -> bool:
        """Whether the moment has come; it is waited for."""
        self.synchronize()
        return True

    def synchronize(self) -> None:
        """Wait for the moment."""
        if self._recorded:
            self._event.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this moment to another, both recorded with ``enable_timing``."""
        if not (self._timed and end_event._timed):
            raise ValueError("both events need enable_timing=True to tell the time between them")
        if not (self._recorded and end_event._recorded):
            raise GraphFlowError("both events have to be recorded before the time between is known")
        end_event.synchronize()
        return 0.0 if is_simulated() else float(self._event.elapsed_time(end_event._event))


class Stream:
    """The stream of a device: there is one, which every ``Stream`` stands for."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        require_device()

    def synchronize(self) -> None:
        """Wait for all work so far."""
        synchronize()

    def query(self) -> bool:
        """Whether all work is done; it is waited for."""
        synchronize()
        return True

    def wait_stream(self, stream: Stream) -> None:
        """Nothing to do: it is this stream."""

    def wait_event(self, event: Event) -> None:
        """Nothing to do: later work is done later."""

    def record_event(self, event: Event | None = None) -> Event:
        """Record an event (a new one if none is given) and return it."""
        event = event or Event()
        event.record(self)
        return event

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    def __hash__(self) -> int:
        return hash(Stream)


def current_stream(device: Any = None) -> Stream:
    """The stream."""
    return Stream(device)


def default_stream(device: Any = None) -> Stream:
    """The stream."""
    return Stream(device)


def stream(stream: Stream | None) -> AbstractContextManager[None]:
    """A context that changes nothing: work goes to the one stream anyway."""
    return nullcontext()


def set_stream(stream: Stream | None) -> None:
    """Accepted: work goes to the one stream anyway."""


__all__ = ["Event", "Stream", "current_stream", "default_stream", "set_stream", "stream"]
