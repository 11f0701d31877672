"""Devices.  A tensor lives on one: the CPU, or a CUDA device where there is one."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from graphflow.errors import GraphFlowError
from graphflow.mode import mode

F = TypeVar("F", bound=Callable[..., Any])


class Device:
    """A place for tensors, called by its type: ``gf.device("cpu")``, ``gf.device("cuda", 1)``.

    A device can be named without being there; what would put a tensor on it
    raises.  As a context, it must be one that is.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | Device, index: int | None = None) -> None:
        """Raises for a type nobody has heard of, or an index given twice."""
        if isinstance(type, Device):
            type, index = str(type), None
        if not isinstance(type, str):
            raise TypeError(f"a device is called by a string, not {type!r}")
        kind, colon, number = type.partition(":")
        if kind not in _TYPES or (colon and not number.isdecimal()):
            types = ", ".join(map(repr, _TYPES))
            raise GraphFlowError(f"no device is called {type!r}; there are {types}")
        if colon and index is not None:
            raise GraphFlowError(f"the index of {type!r} is given twice")
        self.type = kind
        self.index = int(number) if colon else index

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Device):
            return NotImplemented
        return (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> Any:
        return Device, (self.type, self.index)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"

    def __enter__(self) -> Device:
        found = available(self)
        _entered.before = mode.place, _entered.before
        _make_on(found)
        return found

    def __exit__(self, *exc: object) -> None:
        assert _entered.before is not None
        mode.place, _entered.before = _entered.before  # no call comes before: Ctrl-C might, too


_TYPES = ("cpu", "cuda", "mps", "xpu", "meta")
CPU = Device("cpu")
device = Device


_Before: TypeAlias = "tuple[Device | None, _Before | None]"


class _Entered(threading.local):
    """Where tensors were made before each of the devices that are entered as contexts."""

    before: _Before | None = None


_entered = _Entered()


def _make_on(found: Device) -> None:
    devices.used |= found != CPU
    mode.place = None if found == CPU else found


def set_default_device(device: str | int | Device | None) -> None:
    """Tensors that this thread makes without naming a device lie there from now on.

    None is the CPU.  Raises for a device that cannot be used here.
    """
    _make_on(CPU if device is None else available(device))


def get_default_device() -> Device:
    """Where this thread makes tensors for which no device is named."""
    return CPU if mode.place is None else mode.place


@functools.cache
def cuda_device(index: int) -> Device:
    """The CUDA device with this number."""
    return Device("cuda", index)


def available(spec: str | int | Device) -> Device:
    """The device ``spec`` (a number is a CUDA device); an error if it cannot be used here."""
    found = Device("cuda", spec) if isinstance(spec, int) else Device(spec)
    if found.type == "cpu" and found.index in (None, 0):
        return CPU
    why = ""
    if found.type == "cuda":
        from graphflow.codegen.cuda.toolchain import state
        from graphflow.runtime.cuda.current import current

        there = state()
        index = current() if found.index is None else found.index
        if index < len(there.devices):
            return cuda_device(index)
        why = f": {there}"
    raise GraphFlowError(f"device {str(found)!r} is not available{why}; use 'cpu'")


class Devices:
    """``used``: whether anything has been put on a device in this process."""

    used = False


devices = Devices()


def is_placed(array: Any) -> bool:
    """Whether an array lies on a device."""
    return hasattr(array, "block")


def put(array: Any, device: Device, wait: bool = True) -> Any:
    """A copy of an array of the CPU on a CUDA device.

    Without ``wait`` a copy from page-locked memory may go on after the return.
    """
    from graphflow.runtime.cuda.memory import DeviceArray

    devices.used = True
    return DeviceArray.of(array, device.index, wait)


def put_in_place(array: Any) -> Any:
    """A fresh array of the CPU where new tensors lie now, see :class:`~graphflow.mode.Mode`."""
    return array if mode.place is None else put(array, mode.place)


@contextmanager
def place(device: Device | None) -> Iterator[None]:
    """Tensors that are made without naming a device lie on this one (None: on the CPU)."""
    before = mode.place
    try:
        mode.place = device
        yield
    finally:
        mode.place = before


def beside_operands(function: F) -> F:
    """Mark a function that makes tensors of its own: eagerly they lie where its operands do."""

    @functools.wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        if not devices.used or mode.tracer is not None:
            return function(*args, **kwargs)
        with place(_device_among((*args, *kwargs.values()))):
            return function(*args, **kwargs)

    return marked  # type: ignore[return-value]


def _device_among(values: tuple[Any, ...]) -> Device | None:
    """The first device, not the CPU, that one of ``values`` lies on."""
    for value in values:
        if value.__class__ in (tuple, list):
            found = _device_among(tuple(value))
        else:
            found = getattr(value, "device", None)
        if isinstance(found, Device) and found != CPU:
            return found
    return None


def device_of(array: Any) -> Device:
    """Where an array lies."""
    return cuda_device(array.block.device) if is_placed(array) else CPU
