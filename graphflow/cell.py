"""Storage cells: what tensors share when one is a view of another.

A tensor is a :class:`Cell` and a chain of view operations on the cell's value.
Eagerly the value is a NumPy array, and NumPy's own views share its memory.
In a trace it is a graph node: a mutation *rebinds* the cell to the node of the
new whole value, and every view re-derives its own value from that.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeAlias, TypeVar

import numpy as np

from graphflow.errors import GraphFlowError
from graphflow.ir.build import emit
from graphflow.ir.node import Node
from graphflow.ir.op import OpDef
from graphflow.records import NamedTuple
from graphflow.runtime.fork import renew_after_fork
from graphflow.runtime.storage import COUNTS_ARE_EXACT, Array

if TYPE_CHECKING:
    from graphflow.runtime.cuda.memory import DeviceArray
    from graphflow.tensor import Tensor
    from graphflow.trace import Tracer

P = ParamSpec("P")
R = TypeVar("R")


class ViewStep(NamedTuple):
    """One view operation of a chain: the record and its attributes."""

    op: OpDef
    attrs: Mapping[str, Any]


Filling: TypeAlias = Callable[[Array], None]
"""What writes all of a row-major array."""
Chain = tuple[ViewStep, ...]
Layout = tuple[Any, Any]
"""A NumPy dtype and a shape; equal ones are one object."""

CAPTURED: Layout = (None, None)
_LAYOUTS: dict[Layout, Layout] = {}


def layout_of(dtype: Any, shape: Any) -> Layout:
    """The one layout of this dtype and shape, to be compared by identity."""
    layout = (dtype, shape)
    return _LAYOUTS.setdefault(layout, layout)


class Cell:
    """The memory (eager) or the current value (traced) behind one or more tensors.

    ``version`` counts mutations; autograd compares it to refuse a backward pass
    over values that are gone.  ``tracer`` is None for eager memory.

    ``shared`` says that memory may change without being counted: it is that of an array the
    user has.  What a program makes of it is not kept from call to call.

    ``layout`` is what :func:`layout_of` gives for row-major memory whose address is
    known, None as long as nobody asked, and ``CAPTURED`` once a program may reach
    this memory by itself: arguments over it need a closer look.
    """

    is_unfilled: ClassVar[bool] = False
    """Whether the memory awaits what it will hold: see :class:`UnfilledCell`."""

    __slots__ = (
        "__weakref__", "_address", "layout", "shared", "tracer", "value", "version", "views",
    )  # fmt: skip

    value: Any
    version: int
    shared: bool
    tracer: Tracer | None
    layout: Layout | None
    views: list[weakref.ref[Tensor]] | None
    """Views that were made while their base had no history: it may come to have one."""
    _address: int

    def __init__(
        self,
        value: np.ndarray[Any, Any] | DeviceArray | Node,
        tracer: Tracer | None = None,
        address: int = 0,
    ) -> None:
        self.value = value
        self.version = 0
        self.shared = False
        self.tracer = tracer
        self._address = address
        self.layout = self.views = None
        if tracer is not None and tracer.region is not None:
            tracer.region.own.add(self)

    def seen_by(self, view: Tensor) -> None:
        """Remember a view of a base without history, as long as it is there."""
        if self.views is None:
            self.views = []
        elif len(self.views) % _LOOK_EVERY == _LOOK_EVERY - 1:
            self.views = [known for known in self.views if known() is not None]
        self.views.append(weakref.ref(view))

    @property
    def address(self) -> int:
        """Where the array starts in memory; read once, as NumPy's answer costs 1 µs."""
        if not self._address:
            self._address = self.value.__array_interface__["data"][0]
        return self._address

    @property
    def memory(self) -> Any:
        """The value, for who asks what it is and not what is in it."""
        return self.value

    def fill_later(self, fill: Filling) -> None:
        """Have ``fill(array)`` write all of eager memory, before anybody reads of it.

        That is now if the array is known outside this cell, or memory that others see too.
        """
        self.forget_filling()
        array = self.value
        counted = sys.getrefcount(array) == _HELD_ALONE and COUNTS_ARE_EXACT
        if counted and array.flags.owndata and not (self._address or self.shared or self.layout):
            self.value = (array, fill)
            self.__class__ = UnfilledCell
        else:
            fill(array)

    def forget_filling(self) -> None:
        """All of eager memory is about to be written by the caller."""


_LOOK_EVERY = 64
"""After how many more views those that are gone are forgotten."""
_HELD_ALONE = 3
"""References to an array in ``Cell.fill_later`` if only the cell has it: the cell's, the local
variable's and the argument's of ``getrefcount``."""


class UnfilledCell(Cell):
    """A cell whose memory awaits what it will hold; reading ``value`` writes it, and ends that.

    A model's first weights are random numbers, and most models that are run read a checkpoint
    over them: those numbers are never made.  The slot has the array and what fills it.
    """

    __slots__ = ()
    is_unfilled = True
    _lock: ClassVar[_FillingLock]

    @property
    def value(self) -> Any:
        """The array, filled now; who finds another thread at that waits for it."""
        with self._lock.lock:
            if self.is_unfilled:
                array, fill = _slot(self)
                fill(array)
                self._become(array)
        return self.value

    @value.setter
    def value(self, value: Any) -> None:
        with self._lock.lock:
            self._become(value)

    @property
    def memory(self) -> Any:
        """The array as it is."""
        with self._lock.lock:
            return _slot(self)[0] if self.is_unfilled else self.value

    def forget_filling(self) -> None:
        """All of the memory is about to be written by the caller."""
        with self._lock.lock:
            if self.is_unfilled:
                self._become(_slot(self)[0])

    def _become(self, value: Any) -> None:
        """An ordinary cell of ``value``."""
        self.__class__ = Cell  # type: ignore[assignment]
        self.value = value


_slot: Callable[[Cell], Any] = Cell.__dict__["value"].__get__
"""What the slot of a cell has, whatever its class says."""


class TypeOnlyCell(Cell):
    """A cell whose memory was let go of: what reads its value is an error in GraphFlow itself.

    A cell becomes one by being given this class.
    """

    __slots__ = ()
    is_unfilled = True

    @property
    def value(self) -> Any:
        """There is none."""
        raise GraphFlowError(
            "a gradient rule reads a value that it was not known to read; please report this"
        )

    @property
    def memory(self) -> Any:
        """An array of the type, with one element behind all its places."""
        return _slot(self)


class _FillingLock:
    """One at a time fills a cell; a forked child has a lock that nobody holds."""

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def after_fork(self) -> None:
        """A fresh lock: another thread of the parent may have held it."""
        self.lock = threading.RLock()


UnfilledCell._lock = _FillingLock()


def view_of(op: OpDef, array: Any, attrs: Mapping[str, Any]) -> Any:
    """View ``op`` of an array, over the same memory, wherever it lies."""
    if array.__class__ is np.ndarray:
        return op.reference(array, **attrs)
    from graphflow.on_device import viewed

    return viewed(op, array, dict(attrs))


def copy_of(array: Any) -> Any:
    """A copy of an array, where it lies."""
    if array.__class__ is np.ndarray:
        return np.array(array)
    from graphflow.on_device import copied

    return copied(array)


def counted(
    cells: Iterable[Cell], write: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> R:
    """``write(*args, **kwargs)``, which writes to all of ``cells``: they have another version then.

    Also if Ctrl-C comes after the last write: nobody may go by what the memory held before.
    """
    try:
        result = write(*args, **kwargs)
        for cell in cells:
            cell.version += 1
        return result
    except GraphFlowError:  # nothing has changed
        raise
    except BaseException:
        for cell in cells:
            cell.version += 1
        raise


def derive(value: Node, chain: Chain) -> Node:
    """The value of a view: the chain of operations applied to the whole value."""
    for step in chain:
        value = emit(step.op, value, **step.attrs)
    return value


def write_through(whole: Node, chain: Chain, new: Node) -> Node:
    """The whole value after the view ``chain`` of it has been set to ``new``."""
    parents = [whole] if chain else []
    for step in chain[:-1]:
        parents.append(emit(step.op, parents[-1], **step.attrs))
    for step, parent in zip(reversed(chain), reversed(parents), strict=True):
        new = invert_view(step, parent, new, emit)
    return new


def invert_view(step: ViewStep, parent: Any, new: Any, emit_op: Any) -> Any:
    """``parent`` with the part that view ``step`` shows replaced by ``new``.

    Works on nodes and on tensors: ``emit_op(op, *values, **attrs)`` builds either.
    """
    inverse = step.op.view_inverse
    if inverse is None:
        raise GraphFlowError(
            f"cannot write through a view made by {step.op.name}: several elements "
            "share one memory location; call .clone() before the in-place operation"
        )
    return inverse(emit_op, parent, new, step.attrs)
