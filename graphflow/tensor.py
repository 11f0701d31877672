"""The tensor: a storage cell, a view of it, and its place in autograd.

This file holds what every tensor *is*; the operations on it (``x.sum()``,
``x + y``) come from :class:`graphflow.methods.TensorMethods`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, overload

import numpy as np

from graphflow.cell import Cell, Chain, ViewStep, derive, view_of
from graphflow.errors import GraphFlowError, TraceError
from graphflow.handles import RemovableHandle
from graphflow.ir.node import Node
from graphflow.ir.types import DType, TensorType, from_numpy_dtype
from graphflow.methods import TensorMethods
from graphflow.mode import mode, structure
from graphflow.stale_gradient import StaleGradient, need_gradient_for
from graphflow.traced_sizes import traced_shape

if TYPE_CHECKING:
    from graphflow.autograd.history import GradNode
    from graphflow.device import Device


class Size(tuple[int, ...]):
    """A shape.  A tuple with PyTorch's ``numel`` and spelling; parts of it are shapes too."""

    def numel(self) -> int:
        """Number of elements."""
        total = 1
        for extent in self:
            total *= extent
        return total

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Size: ...
    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return Size(found) if isinstance(index, slice) else found

    def __add__(self, other: Any) -> Size:
        return Size(tuple(self) + tuple(other))

    def __repr__(self) -> str:
        return f"graphflow.Size([{', '.join(map(str, self))}])"


class Tensor(TensorMethods):
    """A multi-dimensional array that can record its history for ``backward()``.

    Make one with ``gf.tensor``, ``gf.from_numpy``, ``gf.zeros`` …  ``Tensor(data)``
    itself has the default dtype, and ``Tensor(2, 3)`` is one of these extents.
    """

    __slots__ = (
        "__dict__", "__weakref__", "_array", "_base", "_cell", "_chain", "_grad", "_grad_fn",
        "_hooks", "_origin", "_requires_grad", "_seen", "_weak", "name",
    )  # fmt: skip

    _array: Any
    _base: Tensor | None
    _cell: Cell
    _chain: Chain
    _grad: Any
    _grad_fn: GradNode | None
    _hooks: list[Callable[[Tensor], Any]] | None
    _origin: int
    _requires_grad: bool
    _seen: int
    _weak: bool
    name: str | None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Of the data given, or of the extents given, not filled."""
        from graphflow.functions.typed import of_data_or_extents

        made = of_data_or_extents("Tensor", None, args)
        return cls._of(made._cell, made._chain)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Everything is done in ``__new__``."""

    @classmethod
    def _of(cls, cell: Cell, chain: Chain = ()) -> Self:
        """The tensor over ``cell`` through ``chain``, without history."""
        self = object.__new__(cls)
        self._cell = cell
        self._chain = chain
        self._array = cell.value if not chain else None
        self._seen = cell.version
        self._base = self._grad = self._grad_fn = self._hooks = self.name = None
        self._origin = 0
        self._requires_grad = self._weak = False
        return self

    # ---- value ---------------------------------------------------------------------

    def _eager(self) -> np.ndarray[Any, Any]:
        """The NumPy array (a view of the cell's memory)."""
        array = self._array
        if array.__class__ is np.ndarray:
            return array
        if self._cell.tracer is not None:
            raise TraceError(
                "a tensor from inside a compiled function is used after the trace ended; "
                "return it, or assign it to an attribute of a module; nothing else outlives a trace"
            )
        value = self._cell.value
        for step in self._chain:
            value = view_of(step.op, value, step.attrs)
        self._array = value
        return value  # type: ignore[no-any-return]

    def _memory(self) -> np.ndarray[Any, Any]:
        """:meth:`_eager` for who asks what the array is, not what is in it."""
        return self._cell.memory if not self._chain and self._cell.is_unfilled else self._eager()

    def _host(self) -> np.ndarray[Any, Any]:
        """The values as a NumPy array: the memory itself, or a copy of what is on a device."""
        array: Any = self._eager()
        return array if array.__class__ is np.ndarray else array.numpy()

    def _traced_value(self, cell: Cell) -> Node:
        """The node of this tensor, given the traced cell that shadows its own."""
        if self._cell is cell:
            if self._array is None or self._seen != cell.version:
                self._array = derive(cell.value, self._chain)
                self._seen = cell.version
            return self._array  # type: ignore[no-any-return]
        return derive(cell.value, self._chain)

    @property
    def _version(self) -> int:
        tracer = mode.tracer
        return (self._cell if tracer is None else tracer.shadow(self._cell)).version

    @property
    def _type(self) -> TensorType:
        tracer = mode.tracer
        return self._type_now() if tracer is None else tracer.node(self).tensor_type

    def _type_now(self) -> TensorType:
        """The type of eager memory, trace or not."""
        array = self._memory()
        return TensorType(from_numpy_dtype(array.dtype), array.shape)

    @property
    def shape(self) -> Size:
        """The extents, a :class:`Size`."""
        array = self._array
        if array is None or array.__class__ is Node:
            type = self._type if array is None else array.tensor_type
            return Size(type.static_shape if type.is_static else traced_shape(type.shape))
        return Size(array.shape)

    @property
    def dtype(self) -> DType:
        """The element type."""
        array = self._array
        if array is None and self._chain:
            return self._type.dtype
        array = self._cell.memory if array is None else array
        return array.dtype if array.__class__ is Node else from_numpy_dtype(array.dtype)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def device(self) -> Device:
        """Where the data lives; in a trace, where the program runs."""
        from graphflow.device import device_of

        tracer = self._cell.tracer
        return device_of(self._cell.value) if tracer is None else tracer.device

    def _concrete(self, what: str) -> np.ndarray[Any, Any]:
        """The array (on a device a copy of it), or an error with the user's line: there is none."""
        if mode.tracer is not None:
            mode.tracer.refuse_value(self, what)
        return self._host()

    def _lent(self, what: str) -> np.ndarray[Any, Any]:
        """:meth:`_concrete` for who may write to it, now or later."""
        self._cell.shared = True
        return self._concrete(what)

    # ---- autograd ------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """True when operations on this tensor are recorded."""
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Ask for a gradient (or stop asking); leaves only.  Returns the tensor."""
        if requires_grad:
            self.dtype.need_derivatives()
        if not self.is_leaf and not requires_grad:
            raise GraphFlowError("requires_grad can be switched off for leaves only; detach()")
        if requires_grad != self._requires_grad:
            if mode.tracer is not None:
                mode.tracer.switches.note(mode.tracer, self)
            self._requires_grad, self._base = requires_grad, None
            structure.bump()
        return self

    @property
    def is_leaf(self) -> bool:
        """True for tensors that no recorded operation made."""
        return self.grad_fn is None

    @property
    def grad_fn(self) -> GradNode | None:
        """The recorded operation that made this value; None for leaves."""
        base = self._base
        if base is not None and base._origin != self._origin:
            self._rederive()
        return self._grad_fn

    def _adopt(self, new: Tensor) -> None:
        """Take over the history of ``new`` (an in-place operation made this value)."""
        self._grad_fn, self._origin = new.grad_fn, self._origin + 1
        begins, self._requires_grad = not self._requires_grad, new._requires_grad
        if begins and self._cell.views is not None:
            for view in [known() for known in self._cell.views]:
                if view is not None and view._base is self:
                    view._rederive()

    def _rederive(self) -> None:
        """Rebuild a view's history after its base was changed in place."""
        from graphflow.autograd.history import SavedOutput, record

        base = self._base
        assert base is not None
        self._origin = base._origin
        current = base
        for step in self._chain[len(base._chain) :]:
            out = Tensor._of(self._cell, (*current._chain, ViewStep(step.op, step.attrs)))
            if mode.tracer is not None:
                out._array = mode.tracer.node(out)
                out._seen = mode.tracer.shadow(self._cell).version
            if current._requires_grad:
                record(step.op, (current,), step.attrs, out)
            current = out
        self._grad_fn = current._grad_fn
        self._requires_grad = current._requires_grad
        if self._grad_fn is not None:
            self._grad_fn.out = SavedOutput(self)

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient, or None.

        After a compiled step that did not keep it, reading it raises an error
        that names the option; it is never out of date.
        """
        held = self._held_grad()
        if held.__class__ is StaleGradient:
            raise GraphFlowError(
                f"the compiled step {held.program!r} updated this parameter without keeping "
                "its gradient; use gf.compile(..., keep_grads=True) to read .grad afterwards, or "
                "zero_grad() before gradients are added to it"
            )
        return held  # type: ignore[no-any-return]

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            need_gradient_for(self, value)
        self._set_grad(value)

    def _held_grad(self) -> Any:
        """What stands in ``.grad``: it may be a :class:`StaleGradient`."""
        tracer = mode.tracer
        return self._grad if tracer is None else tracer.grad(self)

    def _set_grad(self, value: Tensor | StaleGradient | None) -> None:
        tracer = mode.tracer
        if tracer is not None:
            tracer.set_grad(self, value)
        elif value is not self._grad:
            self._grad = value
            structure.regrade()

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Accumulate the gradients of this tensor into the ``.grad`` of its leaves."""
        from graphflow.autograd.engine import backward

        chosen = [inputs] if isinstance(inputs, Tensor) else inputs
        backward([self], [gradient], retain_graph, create_graph, chosen)

    def register_hook(self, hook: Callable[[Tensor], Any]) -> RemovableHandle:
        """Call ``hook(grad)`` when the gradient arrives; its result, if any, replaces it."""
        if not self._requires_grad:
            raise GraphFlowError("cannot register a hook on a tensor that does not require grad")
        node = self.grad_fn
        holder: Any = self if node is None else node
        attribute = "_hooks" if node is None else "hooks"
        hooks = getattr(holder, attribute)
        if hooks is None:
            hooks = []
            setattr(holder, attribute, hooks)
        hooks.append(hook)
        structure.bump()
        return RemovableHandle(hooks, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], Any]) -> RemovableHandle:
        """Call ``hook(leaf)`` when the leaf's ``.grad`` is complete in a backward pass."""
        from graphflow.autograd.engine import AfterAccumulation

        if not self._requires_grad or self.grad_fn is not None:
            raise GraphFlowError(
                "a post accumulate grad hook can only be registered on leaf tensors that "
                "require grad"
            )
        return self.register_hook(AfterAccumulation(hook))  # type: ignore[arg-type]

    @property
    def retains_grad(self) -> bool:
        """True when ``.grad`` of a tensor that is not a leaf will be kept."""
        node = self.grad_fn
        return node is not None and node.retain is not None and node.retain() is self

    def retain_grad(self) -> None:
        """Keep ``.grad`` of a tensor that is not a leaf."""
        if not self._requires_grad:
            raise GraphFlowError("can't retain_grad on a tensor that does not require grad")
        node = self.grad_fn
        if node is not None:
            node.retain = weakref.ref(self)

    def detach(self) -> Tensor:
        """The same memory without history."""
        out: Tensor = Tensor._of(self._cell, self._chain)
        out._array, out._seen = self._array, self._seen
        return out

    def detach_(self) -> Tensor:
        """Forget the history of this tensor."""
        if self._base is not None and self._requires_grad:
            raise GraphFlowError("detach_() does not work on views; use detach()")
        self._grad_fn, self._requires_grad = None, False
        return self

    @property
    def data(self) -> Tensor:
        """The same memory without history; assigning replaces the memory."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if value._cell is self._cell and value._chain == self._chain:
            return  # x.data *= 2 ends with this
        if mode.tracer is not None:
            mode.tracer.moved.note(mode.tracer, self, value)
        self._cell, self._chain, self._base = value._cell, value._chain, None
        self._array, self._seen = value._array, value._seen
        if mode.tracer is None:
            structure.bump()

    # ---- Python --------------------------------------------------------------------

    def __bool__(self) -> bool:
        array = self._concrete("bool() or a condition")
        if array.size != 1:
            raise GraphFlowError(
                f"the truth value of a tensor of shape {list(array.shape)} is ambiguous; "
                "use .any() or .all()"
            )
        return bool(array.item())

    def __float__(self) -> float:
        self._concrete("float()")
        return float(self.item())

    def __int__(self) -> int:
        self._concrete("int()")
        return int(self.item())

    def __complex__(self) -> complex:
        self._concrete("complex()")
        return complex(self.item())

    def __index__(self) -> int:
        array = self._concrete("use as an index")
        if array.dtype.kind not in "iub" or array.size != 1:
            raise TypeError("only integer tensors of a single element can be an index")
        return int(array.item())

    def __hash__(self) -> int:
        return id(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        return np.array(array, dtype=dtype, copy=copy) if dtype or copy else array

    def __dlpack__(self, **options: Any) -> Any:
        """The memory as a DLPack capsule: shared, not copied."""
        if self._requires_grad:
            raise GraphFlowError("a tensor that requires grad does not lend memory; detach() it")
        if not self._cell.tracer and self.device.type != "cpu":
            from graphflow.runtime.cuda.lending import lent

            array: Any = self._eager()
            return lent(array, **options)
        return self._lent("__dlpack__()").__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Device type (1: CPU, 2: CUDA) and number."""
        device = self.device
        return (1, 0) if device.type == "cpu" else (2, device.index or 0)

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """The data as a NumPy array that shares memory."""
        if self._requires_grad and not force:
            raise GraphFlowError("numpy() on a tensor that requires grad; use detach().numpy()")
        if not force and self.device.type != "cpu":
            raise TypeError(f"numpy() on a tensor on {self.device}; copy it with .cpu() first")
        return self._lent("numpy()")

    def item(self) -> Any:
        """The only element as a Python number."""
        array = self._concrete("item()")
        if array.size != 1:
            raise GraphFlowError(f"item() needs one element; the shape is {list(array.shape)}")
        return array.item()

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self._concrete("tolist()").tolist()

    def __repr__(self) -> str:
        from graphflow.printing import tensor_repr

        return tensor_repr(self)

    def __format__(self, spec: str) -> str:
        """A tensor of no dimensions formats as its number."""
        if self.ndim == 0 and (spec or self._cell.tracer is None):
            return format(self.detach().item(), spec)
        return format(repr(self), spec)

    def __reduce_ex__(self, protocol: Any) -> Any:
        array = self._concrete("pickling")
        made_of = type(self), np.array(array), self._requires_grad
        return (_rebuild, made_of, self.__dict__ or None)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copy = self._copy(memo)
        copy.__dict__.update(deepcopy(self.__dict__, memo))
        return copy

    def _copy(self, memo: dict[int, Any]) -> Self:
        """A copy with its gradient, without the attributes that it was given."""
        if not self.is_leaf:
            raise GraphFlowError("deepcopy works on leaf tensors only; detach() or clone() first")
        copy: Any = self.detach().clone()
        copy.__class__ = type(self)
        copy._requires_grad = self._requires_grad
        held = self._grad if mode.tracer is None else self.grad
        if isinstance(held, Tensor):
            copy.grad = held.__deepcopy__(memo)
        memo[id(self)] = copy
        return copy  # type: ignore[no-any-return]


def _rebuild(cls: type[Tensor], array: np.ndarray[Any, Any], requires_grad: bool) -> Any:
    made = cls._of(Cell(array))
    made._requires_grad = requires_grad
    return made
