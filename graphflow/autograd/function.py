"""Custom functions with their own backward, as in PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from graphflow.autograd.history import SHARED, SavedOutput
from graphflow.autograd.modes import in_grad_mode
from graphflow.autograd.saved import Packed, hooks_at_work, packed, unpacked
from graphflow.autograd.several import Collector, OutputNode
from graphflow.cell import Cell
from graphflow.errors import GraphFlowError
from graphflow.ir.types import DType
from graphflow.mode import mode
from graphflow.promotion import cast
from graphflow.tensor import Tensor

if TYPE_CHECKING:
    from graphflow.autograd.graph import saved_tensors_hooks


class FunctionCtx:
    """What ``forward`` leaves for ``backward``; any attribute may be set on it."""

    def __init__(self) -> None:
        self.needs_input_grad: tuple[bool, ...] = ()
        self._kept: tuple[Any, ...] = ()
        self._node: _FunctionNode | None = None
        self._dirty: tuple[Tensor, ...] = ()
        self._flat: set[int] = set()
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep inputs or outputs for ``backward``, where they are ``ctx.saved_tensors``."""
        for value in tensors:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    "save_for_backward can only save tensors, but an argument is of type "
                    f"{type(value).__name__}; set other values as attributes of ctx"
                )
        self._kept = tensors

    def save_for_forward(self, *tensors: Tensor | None) -> None:
        """Accepted for compatibility: there is no forward mode."""

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved; an error if one was since changed in place."""
        node = self._node
        return self._kept if node is None else node.saved()

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """Say that outputs carry no gradient (integer outputs never do)."""
        self._flat = {id(t) for t in outputs}

    def mark_dirty(self, *inputs: Tensor) -> None:
        """Say that inputs were changed in place; they are to be returned, too."""
        self._dirty = inputs

    def set_materialize_grads(self, value: bool) -> None:
        """Whether ``backward`` sees zeros for outputs without a gradient, or None."""
        self._materialize = value


class _FunctionNode(Collector):
    __slots__ = ("arguments", "context", "function", "kept", "outputs", "single")

    passes_on: ClassVar[int] = SHARED  # a rule may return what it saved
    context: FunctionCtx
    function: type[Function]
    arguments: tuple[bool, ...]
    outputs: tuple[Any, ...]
    kept: tuple[Any, ...]
    single: bool

    def name(self) -> str:
        """``MyFunctionBackward``."""
        return f"{self.function.__name__}Backward"

    def saved(self) -> tuple[Any, ...]:
        """The saved tensors, results of this very operation with their history."""
        if self.released:
            raise GraphFlowError(
                f"backward through {self.function.__name__} a second time, after its saved "
                "values were freed; pass retain_graph=True to the first backward()"
            )
        return tuple(map(self._value, self.kept))

    def _value(self, item: Any) -> Any:
        if isinstance(item, int):
            saved = self.outputs[item][0]
            if isinstance(saved, SavedOutput) and saved.is_changed:
                self._refuse_changed()
            return self.result(item)
        if item.__class__ is not tuple:
            return unpacked(item)
        tensor, version = item
        if tensor._version != version:
            self._refuse_changed()
        return tensor

    def _refuse_changed(self) -> None:
        raise GraphFlowError(
            f"a tensor saved by {self.function.__name__} was modified by an in-place "
            "operation; clone() it first"
        )

    def keep_from(self, cell: Cell) -> None:
        """Have saved results elsewhere that lie in ``cell``."""
        for item in self.kept:
            saved = self.outputs[item][0] if isinstance(item, int) else None
            if isinstance(saved, SavedOutput) and saved.lies_in(cell):
                saved.move()

    def pack(self, hooks: saved_tensors_hooks, outs: Sequence[Any]) -> None:
        """Give what was saved to the hooks, and let go of everything else."""
        results: dict[int, Packed] = {}
        kept: list[Any] = []
        for item in self.kept:
            if isinstance(item, int):
                results[item] = Packed(hooks, outs[item], None)
            elif item is not None:
                item = packed(hooks, item[0])
            kept.append(item)
        self.inputs, self.kept = (), tuple(kept)
        self.outputs = tuple((results.get(i), *out[1:]) for i, out in enumerate(self.outputs))

    def result(self, index: int) -> Tensor:
        """Result ``index`` with its history."""
        held: Tensor = self.outputs[index][0].alias(None)
        held._grad_fn = self if self.single else OutputNode(self, index)
        held._requires_grad = True
        return held

    def release(self) -> None:
        """Let go of the saved values."""
        super().release()
        self.kept = ()

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """What the user's ``backward`` returns, one a tensor operand."""
        name = self.function.__name__
        if self.released:
            self.saved()
        arrived = {0: ct} if self.single else dict(self.arrived)
        self.arrived.clear()
        cts = [self._cotangent(arrived, i) for i in range(len(self.outputs))]
        results = in_grad_mode(create_graph, self.function.backward, self.context, *cts)
        given = results if isinstance(results, tuple) else (results,)
        count = len(self.arguments)
        if len(given) < count or any(g is not None for g in given[count:]):
            raise GraphFlowError(
                f"{name}.backward returned an incorrect number of gradients "
                f"(expected {count}, got {len(given)})"
            )
        for g, is_tensor in zip(given, self.arguments):
            if g is not None and not is_tensor:
                raise GraphFlowError(
                    f"{name}.backward returned a gradient for an argument that is no tensor"
                )
        wanted = [g for g, is_tensor in zip(given, self.arguments) if is_tensor]
        return [
            None if edge is None or g is None else self._fitted(builder, g, shape, dtype)
            for edge, g, (shape, dtype) in zip(self.edges, wanted, self.attrs["operands"])
        ]

    def _cotangent(self, arrived: dict[int, Tensor], index: int) -> Tensor | None:
        from graphflow.dispatch import full

        found = arrived.get(index)
        if found is not None or not self.context._materialize:
            return found
        _, shape, dtype = self.outputs[index]
        return None if shape is None else full(shape, 0, dtype)

    def _fitted(self, builder: Any, ct: Tensor, shape: tuple[int, ...], dtype: DType) -> Tensor:
        from graphflow.ir.cotangent import unbroadcast

        ct = cast(ct, dtype)
        if tuple(ct.shape) == shape:
            return ct
        longer = (1,) * (len(ct.shape) - len(shape)) + shape
        if len(longer) != len(ct.shape) or any(b not in (1, a) for a, b in zip(ct.shape, longer)):
            raise GraphFlowError(
                f"{self.function.__name__}.backward returned an invalid gradient: got "
                f"{list(ct.shape)} but expected shape compatible with {list(shape)}"
            )
        fitted: Tensor = unbroadcast(builder, ct, shape)
        return fitted


class Function:
    """Sub-class with static ``forward`` and ``backward``, then call ``apply``.

    ``forward(ctx, *args)``; or ``forward(*args)`` with ``setup_context(ctx, inputs, output)``.
    ``backward(ctx, *cotangents)`` returns a gradient, or None, for every argument.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Save what ``backward`` needs, for a ``forward`` without ``ctx``."""
        raise NotImplementedError("setup_context is not implemented")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` and record ``backward``."""
        context = FunctionCtx()
        tensors = tuple(a for a in args if isinstance(a, Tensor))
        context.needs_input_grad = tuple(isinstance(a, Tensor) and a._requires_grad for a in args)
        recorded = mode.grad and any(context.needs_input_grad)
        node = None
        if recorded:
            operands = tuple((tuple(t.shape), t.dtype) for t in tensors)
            node = _FunctionNode(None, tensors, {"operands": operands})
            node.context, node.function = context, cls
            node.arguments = tuple(isinstance(a, Tensor) for a in args)

        def forward() -> Any:
            if cls.setup_context is Function.setup_context:
                return cls.forward(context, *args, **kwargs)
            out = cls.forward(*args, **kwargs)
            cls.setup_context(context, args, out)
            return out

        out = in_grad_mode(False, forward)
        if node is None:
            return out
        return cls._record(node, tensors, out)

    @classmethod
    def _record(cls, node: _FunctionNode, inputs: Sequence[Tensor], out: Any) -> Any:
        """Give the outputs their histories."""
        context = node.context
        outs = list(out) if isinstance(out, (tuple, list)) else [out]
        if not any(isinstance(o, Tensor) for o in outs):
            raise GraphFlowError(f"{cls.__name__}.forward must return tensors, not {out!r}")
        flat, dirty = context._flat, {id(t) for t in context._dirty}
        kinds = {id(o): i for i, o in enumerate(outs) if isinstance(o, Tensor)}
        mine = [id(t) for t in inputs]
        carries = [_carries(o) and id(o) not in flat for o in outs]
        for i, o in enumerate(outs):
            if isinstance(o, Tensor) and id(o) in mine and id(o) not in dirty:
                outs[i] = o.detach()
        node.kept = tuple(_kept(t, kinds, mine) for t in context._kept)
        context._kept = ()
        node.outputs = tuple(
            (SavedOutput(o), tuple(o.shape), o.dtype) if isinstance(o, Tensor) else (None,) * 3
            for o in outs
        )
        node.single = len(outs) == 1
        context._node = node
        for i, (o, carried) in enumerate(zip(outs, carries)):
            if carried:
                o._grad_fn = node if node.single else OutputNode(node, i)
                o._requires_grad = True
                o._origin += 1
        if (hooks := hooks_at_work()) is not None:
            node.pack(hooks, outs)
        if not isinstance(out, (tuple, list)):
            return outs[0]
        return tuple(outs)


def _carries(value: Any) -> bool:
    return isinstance(value, Tensor) and (value.dtype.is_floating_point or value.dtype.is_complex)


def _kept(value: Tensor | None, outputs: dict[int, int], inputs: list[int]) -> Any:
    """None, the number of an output, or a tensor with its version."""
    if value is None:
        return None
    if id(value) in outputs and id(value) not in inputs:
        return outputs[id(value)]
    return value, value._version


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a ``backward`` whose result cannot be differentiated again."""

    @functools.wraps(backward)
    def wrapper(ctx: Any, *cotangents: Any) -> Any:
        again = mode.grad
        results = in_grad_mode(False, backward, ctx, *cotangents)
        if not again:
            return results
        given = results if isinstance(results, tuple) else (results,)
        refused = tuple(_refusing(g) if isinstance(g, Tensor) else g for g in given)
        return refused if isinstance(results, tuple) else refused[0]

    return wrapper


class _Refusal(Function):
    """The identity, whose own gradient is an error."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, ct: Tensor) -> Tensor:
        raise GraphFlowError(
            "trying to differentiate twice a function that was marked with @once_differentiable"
        )


def _refusing(value: Tensor) -> Any:
    value = value.detach()
    value._requires_grad = True
    return _Refusal.apply(value)
