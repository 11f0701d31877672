"""Gradients against finite differences: ``gradcheck`` and ``gradgradcheck``.

Complex numbers are taken as pairs of real ones, so that every derivative is a real
Jacobian; a column of it is the response to one real number.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from graphflow.autograd.engine import grad
from graphflow.errors import GraphFlowError
from graphflow.tensor import Tensor

Array = np.ndarray[Any, Any]


class GradcheckError(GraphFlowError):
    """A gradient differs from the finite difference."""


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    **options: Any,
) -> bool:
    """Whether the gradients of ``func(*inputs)`` agree with central differences.

    Inputs that require gradients should be of double precision.  Raises GradcheckError with
    both Jacobians where they differ, or returns False for ``raise_exception=False``.
    ``nondet_tol`` is how much two backward passes may differ.
    """
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    try:
        _check(func, given, eps, atol, rtol, nondet_tol)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    **options: Any,
) -> bool:
    """:func:`gradcheck` of the gradients themselves, by inputs and cotangents."""
    given = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    outputs = _differentiable(func(*given))
    if grad_outputs is None:
        rng = np.random.default_rng(0)
        cts = tuple(_random_like(rng, out) for out in outputs)
    else:
        cts = (grad_outputs,) if isinstance(grad_outputs, Tensor) else tuple(grad_outputs)
    count = len(given)

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        outs = _differentiable(func(*arguments[:count]))
        wanted = [t for t in arguments[:count] if _wanted(t)]
        found = grad(outs, wanted, arguments[count:], create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradients, (*given, *cts), eps=eps, atol=atol, rtol=rtol,
        raise_exception=raise_exception, nondet_tol=nondet_tol,
    )  # fmt: skip


def _wanted(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _differentiable(outputs: Any) -> tuple[Tensor, ...]:
    given = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    return tuple(t for t in given if _wanted(t))


def _random_like(rng: np.random.Generator, out: Tensor) -> Tensor:
    from graphflow.functions.creation import from_numpy

    array = rng.standard_normal(tuple(out.shape))
    if out.dtype.is_complex:
        array = array + 1j * rng.standard_normal(tuple(out.shape))
    return from_numpy(np.asarray(array, out.dtype.numpy)).requires_grad_()


def _check(
    func: Callable[..., Any], inputs: Sequence[Any], eps: float, atol: float, rtol: float,
    nondet_tol: float,
) -> None:  # fmt: skip
    wanted = [t for t in inputs if _wanted(t)]
    if not wanted:
        raise ValueError("gradcheck expects at least one input tensor to require gradient")
    outputs = _differentiable(func(*inputs))
    for j, out in enumerate(outputs):
        analytic = _analytic(out, wanted)
        again = _analytic(out, wanted)
        for i, tensor in enumerate(wanted):
            if np.abs(analytic[i] - again[i]).max(initial=0.0) > nondet_tol:
                raise GradcheckError(
                    f"Backward is not reentrant: two gradients of output {j} with respect to "
                    f"input {i} differ"
                )
            numeric = _numeric(func, inputs, tensor, j, eps)
            if not np.allclose(analytic[i], numeric, rtol, atol):
                raise GradcheckError(
                    f"Jacobian mismatch for output {j} with respect to input {i},\n"
                    f"numerical:{numeric}\nanalytical:{analytic[i]}"
                )


def _reals(array: Array) -> Array:
    """The numbers of an array in order, of complex ones both parts."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _analytic(out: Tensor, wanted: Sequence[Tensor]) -> list[Array]:
    """A Jacobian a tensor: rows are its numbers, columns those of ``out``."""
    from graphflow.functions.creation import from_numpy

    columns: list[list[Array]] = [[] for _ in wanted]
    basis = np.zeros(tuple(out.shape), out.dtype.numpy)
    for k in range(_reals(basis).size):
        unit = np.zeros_like(basis)
        _reals(unit)[k] = 1
        found = grad(out, wanted, from_numpy(unit), retain_graph=True, allow_unused=True)
        for i, (tensor, g) in enumerate(zip(wanted, found)):
            zero = np.zeros(tuple(tensor.shape), tensor.dtype.numpy)
            columns[i].append(_reals(zero if g is None else g.detach().numpy()))
    return [
        np.stack(part, 1) if part else np.zeros((_reals(t.detach().numpy()).size, 0))
        for part, t in zip(columns, wanted)
    ]


def _numeric(
    func: Callable[..., Any], inputs: Sequence[Any], tensor: Tensor, output: int, eps: float
) -> Array:
    held = tensor.detach().numpy()
    kept = held.copy()
    rows = []
    for k in range(_reals(kept).size):
        values = []
        for sign in (1, -1):
            moved = kept.copy()
            _reals(moved)[k] += sign * eps
            held[...] = moved
            out = _differentiable(func(*inputs))[output]
            values.append(_reals(np.array(out.detach().numpy())))
        held[...] = kept
        rows.append((values[0] - values[1]) / (2 * eps))
    width = (
        rows[0].size
        if rows
        else _reals(np.array(_differentiable(func(*inputs))[output].detach().numpy())).size
    )
    return np.stack(rows) if rows else np.zeros((0, width))


class _Module(ModuleType):
    """This module: importing it puts it where ``autograd`` has the function of the same name."""

    def __call__(self, *args: Any, **options: Any) -> bool:
        """What the function says."""
        return gradcheck(*args, **options)


sys.modules[__name__].__class__ = _Module
