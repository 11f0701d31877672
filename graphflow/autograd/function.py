"""Custom functions with their own backward, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.autograd.history import GradNode, set_grad_enabled
from graphflow.errors import GraphFlowError
from graphflow.mode import mode
from graphflow.tensor import Tensor


class FunctionCtx:
    """What ``forward`` leaves for ``backward``; any attribute may be set on it."""

    def __init__(self) -> None:
        self.saved_tensors: tuple[Tensor, ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()
        self.tensor_inputs: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors for ``backward``, where they are ``ctx.saved_tensors``."""
        self.saved_tensors = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that outputs carry no gradient (integer outputs never do)."""
        self.non_differentiable = {id(t) for t in tensors}


class _FunctionNode(GradNode):
    __slots__ = ("context", "function")

    context: FunctionCtx
    function: type[Function]

    def cotangents(self, builder: Any, ct: Tensor, create_graph: bool) -> list[Tensor | None]:
        """What the user's ``backward`` returns, one a tensor operand."""
        if self.released:
            raise GraphFlowError(
                f"backward through {self.function.__name__} a second time; "
                "pass retain_graph=True to the first backward()"
            )
        with set_grad_enabled(create_graph):
            results = self.function.backward(self.context, ct)
        given = results if isinstance(results, tuple) else (results,)
        if len(given) != len(self.context.needs_input_grad):
            raise GraphFlowError(
                f"{self.function.__name__}.backward returned {len(given)} gradients for "
                f"{len(self.context.needs_input_grad)} inputs"
            )
        return [g for g, is_tensor in zip(given, self.context.tensor_inputs) if is_tensor]


class Function:
    """Sub-class with static ``forward(ctx, ...)`` and ``backward(ctx, grad)``; call ``apply``."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run ``forward`` and record ``backward``."""
        context = FunctionCtx()
        tensors = tuple(a for a in args if isinstance(a, Tensor))
        context.tensor_inputs = tuple(isinstance(a, Tensor) for a in args)
        context.needs_input_grad = tuple(isinstance(a, Tensor) and a._requires_grad for a in args)
        with set_grad_enabled(False):
            out = cls.forward(context, *args)
        if not (mode.grad and any(context.needs_input_grad)):
            return out
        if not isinstance(out, Tensor):
            raise GraphFlowError(f"{cls.__name__}.forward must return one tensor")
        if any(out is t for t in tensors):
            out = out.detach()
        node = _FunctionNode(None, tensors, {})
        node.context, node.function = context, cls
        out._grad_fn, out._requires_grad = node, True
        return out
