"""Jacobians, Hessians and products with them, of functions of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.autograd.engine import grad
from graphflow.autograd.modes import enable_grad
from graphflow.errors import GraphFlowError
from graphflow.tensor import Tensor

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Function = Callable[..., Any]


def _inputs(inputs: Any, create_graph: bool) -> tuple[bool, list[Tensor]]:
    """Whether there were several, and copies of the inputs that want gradients."""
    several = isinstance(inputs, (tuple, list))
    given = list(inputs) if several else [inputs]
    for value in given:
        if not isinstance(value, Tensor):
            raise TypeError(f"the inputs must be tensors, not {type(value).__name__}")
    if create_graph:
        return several, [
            t.view_as(t) if t.requires_grad else t.detach().requires_grad_() for t in given
        ]
    return several, [t.detach().requires_grad_() for t in given]


def _outputs(func: Function, inputs: Sequence[Tensor]) -> tuple[bool, list[Tensor]]:
    out = func(*inputs)
    several = isinstance(out, (tuple, list))
    return several, list(out) if several else [out]


def _gradients(
    outs: Sequence[Tensor], wrt: Sequence[Tensor], cts: Sequence[Tensor] | None, create_graph: bool,
    strict: bool,
) -> list[Tensor]:  # fmt: skip
    """Gradients; zeros for what is not used, or an error where that is asked for."""
    pairs = [(o, None if cts is None else cts[i]) for i, o in enumerate(outs) if o.requires_grad]
    found: Sequence[Tensor | None] = [None] * len(wrt)
    if pairs:
        kept, given = zip(*pairs)
        found = grad(
            kept, wrt, None if cts is None else given, retain_graph=True,
            create_graph=create_graph, allow_unused=True,
        )  # fmt: skip
    results = []
    for tensor, g in zip(wrt, found):
        if g is None and strict:
            raise GraphFlowError(
                "an output of the function is independent of an input; this is not allowed in "
                "strict mode"
            )
        results.append(_zeros(tensor) if g is None else g)
    return results


def _zeros(tensor: Tensor) -> Tensor:
    from graphflow.dispatch import full

    return full(tuple(tensor.shape), 0, tensor.dtype, tensor.device)


def _nested(several: bool, values: Sequence[Any]) -> Any:
    return tuple(values) if several else values[0]


def _finished(create_graph: bool, values: Sequence[Tensor]) -> list[Tensor]:
    return list(values) if create_graph else [t.detach() for t in values]


@enable_grad()
def jacobian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of ``func(*inputs)``: shape of the output, then that of the input.

    A tuple an output that has several, of a tuple an input.  ``vectorize`` and
    ``strategy`` are accepted; every row is a backward pass.
    """
    from graphflow.functions.shaping import reshape, stack

    several, wrt = _inputs(inputs, create_graph)
    many, outs = _outputs(func, wrt)
    rows_of = []
    for out in outs:
        flat = reshape(out, (-1,))
        columns: list[list[Tensor]] = [[] for _ in wrt]
        for i in range(flat.shape[0]):
            for held, g in zip(columns, _gradients([flat[i]], wrt, None, create_graph, strict)):
                held.append(g)
        matrices = [
            reshape(stack(held), (*out.shape, *t.shape)) if held
            else _zeros(t).reshape((*out.shape, *t.shape)) for held, t in zip(columns, wrt)
        ]  # fmt: skip
        rows_of.append(_nested(several, _finished(create_graph, matrices)))
    return _nested(many, rows_of)


@enable_grad()
def hessian(
    func: Function,
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a scalar function, one matrix a pair of inputs."""
    several = isinstance(inputs, (tuple, list))

    def slopes(*arguments: Tensor) -> Any:
        out = func(*arguments)
        _need_scalar("hessian", out)
        found = _gradients([out], arguments, None, True, strict)
        return _nested(several, found)

    return jacobian(slopes, inputs, create_graph, strict)


def _need_scalar(name: str, out: Any) -> None:
    if not isinstance(out, Tensor) or out.numel() != 1:
        raise GraphFlowError(f"the function given to {name} must return a single element")


def _checked(v: Any, like: Sequence[Tensor], what: str) -> list[Tensor]:
    """The vector ``v`` with one tensor for each of ``like``; ones where there is none."""
    from graphflow.dispatch import full

    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise GraphFlowError(f"the vector v can only be None if the {what} is one element")
        return [full(tuple(like[0].shape), 1, like[0].dtype)]
    given = list(v) if isinstance(v, (tuple, list)) else [v]
    if [tuple(t.shape) for t in given] != [tuple(t.shape) for t in like]:
        raise GraphFlowError(f"the vector v must have the shapes of the {what}")
    return given


@enable_grad()
def vjp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs, and ``vᵀ J`` for each input."""
    several, wrt = _inputs(inputs, create_graph)
    many, outs = _outputs(func, wrt)
    found = _gradients(outs, wrt, _checked(v, outs, "outputs"), create_graph, strict)
    results = _finished(create_graph, outs)
    return _nested(many, results), _nested(several, _finished(create_graph, found))


@enable_grad()
def jvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The outputs, and ``J v`` for each output: the derivative of ``uᵀ J`` by ``u``."""
    _, wrt = _inputs(inputs, create_graph)
    direction = _checked(v, wrt, "inputs")
    many, outs = _outputs(func, wrt)
    dual = [_zeros(o).requires_grad_() for o in outs]
    rows = _gradients(outs, wrt, dual, True, strict)
    found = _gradients(rows, dual, direction, create_graph, strict)
    return _nested(many, _finished(create_graph, outs)), _nested(
        many, _finished(create_graph, found)
    )


@enable_grad()
def vhp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The output of a scalar function, and ``vᵀ H`` for each input."""
    several, wrt = _inputs(inputs, create_graph)
    _, (out, *_) = _outputs(func, wrt)
    _need_scalar("vhp", out)
    slopes = _gradients([out], wrt, None, True, strict)
    found = _gradients(slopes, wrt, _checked(v, wrt, "inputs"), create_graph, strict)
    (result,) = _finished(create_graph, [out])
    return result, _nested(several, _finished(create_graph, found))


def hvp(
    func: Function, inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """The output of a scalar function, and ``H v``: H is symmetric, so this is :func:`vhp`."""
    result: tuple[Any, Any] = vhp(func, inputs, v, create_graph, strict)
    return result
