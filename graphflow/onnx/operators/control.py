"""If, Loop and Scan: graphs inside nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.errors import GraphError
from graphflow.onnx.model_file import attributes_of
from graphflow.onnx.operators.table import as_tensor, gf, operator
from graphflow.tensor import Tensor

UNROLLED = 32
"""A loop of so many steps at most is written out."""


def _tensors(values: Any) -> tuple[Any, ...]:
    return tuple(as_tensor(v) for v in values)


def _is_known(value: Any) -> bool:
    return value is None or isinstance(value, np.ndarray)


def _constant(value: Any) -> Any:
    """A bool or number that is known (a tensor outside a trace is); None otherwise."""
    if isinstance(value, Tensor) and value._cell.tracer is None:
        value = value.numpy(force=True)
    return value.reshape(-1)[0].item() if isinstance(value, np.ndarray) else None


@operator("If", raw=True, folds=False)
def choose(cond: Any, *, then_branch: Any, else_branch: Any, scope: Any) -> Any:
    """The results of one of two graphs."""
    known = _constant(cond)
    if known is not None:
        return tuple(scope.run(then_branch if known else else_branch, ()))
    return gf.cond(
        cond.reshape(()),
        lambda: _tensors(scope.run(then_branch, ())),
        lambda: _tensors(scope.run(else_branch, ())),
    )


@operator("Loop", raw=True, folds=False)
def loop(M: Any, cond: Any, *carried: Any, body: Any, scope: Any) -> Any:
    """A graph as long as its condition holds, at most ``M`` times; results of steps stacked."""
    trips, begins = _constant(M), _constant(cond)
    if (cond is None or begins is not None) and (M is None or trips is not None):
        unrolled = _unrolled(trips, begins, list(carried), body, scope)
        if unrolled is not None:
            return unrolled
    stacked = len(body.output) - 1 - len(carried)
    sequences = any(isinstance(value, list) for value in carried)
    unknown = (trips is None and M is not None) or (begins is None and cond is not None)
    if (stacked or sequences) and unknown:
        raise scope.need(0, 1)
    if sequences:
        raise GraphError("a loop over sequences needs a known number of steps")
    first = _tensors(carried)
    if stacked == 0:
        return _while(M, cond, first, body, scope)
    if trips is None or not _condition_stays(body):
        raise GraphError(
            "a loop that stacks results needs a number of steps that is known when the model is "
            "loaded, and no condition of its own"
        )

    def step(state: Any, number: Any) -> Any:
        found = _tensors(scope.run(body, (number, np.array(True), *state)))
        return found[1 : 1 + len(first)], found[1 + len(first) :]

    last, results = gf.scan(step, first, gf.arange(int(trips)))
    return (*last, *results)


def _condition_stays(body: Any) -> bool:
    """Whether the condition that the body returns is the one it was given."""
    source = {n.output[0]: n.input[0] for n in body.node if n.op_type == "Identity"}
    name = body.output[0].name
    while name in source:
        name = source[name]
    constant = {n.output[0]: n for n in body.node if n.op_type == "Constant"}
    if name in constant:
        return bool(attributes_of(constant[name]).get("value", False))
    return bool(name == body.input[1].name)


def _unrolled(trips: Any, begins: Any, state: list[Any], body: Any, scope: Any) -> Any:
    """The loop written out, if every step's condition is known; None if not."""
    stays = _condition_stays(body)
    if stays and (trips is None or trips > UNROLLED) and all(isinstance(s, Tensor) for s in state):
        return None
    if not stays and not all(map(_is_known, state)):
        return None
    going, results = begins is None or begins, []
    step = 0
    while going and (trips is None or step < trips):
        found = scope.run(body, (np.array(step, np.int64), np.array(True), *state))
        going = stays or _constant(found[0])
        if going is None:
            return None
        state = found[1 : 1 + len(state)]
        results.append(_tensors(found[1 + len(state) :]))
        step += 1
    if not results and len(body.output) > 1 + len(state):
        raise GraphError("a loop of no steps has no results to stack")
    return (*state, *(gf.stack(list(parts)) for parts in zip(*results)))


def _while(M: Any, cond: Any, first: Any, body: Any, scope: Any) -> Any:
    most = _tensors((M,))[0]
    going = gf.tensor(True) if cond is None else _tensors((cond,))[0].reshape(())

    def goes_on(carry: Any) -> Any:
        step, holds = carry[:2]
        return holds if most is None else gf.logical_and(holds, gf.lt(step, most.reshape(())))

    def step(carry: Any) -> Any:
        found = _tensors(scope.run(body, carry))
        return (carry[0] + 1, found[0].reshape(()), *found[1:])

    return tuple(gf.while_loop(goes_on, step, (gf.tensor(0), going, *first)))[2:]


@operator("Scan", raw=True, folds=False)
def scan(
    *inputs: Any, body: Any, num_scan_inputs: int, scan_input_axes: Any = None,
    scan_input_directions: Any = None, scan_output_axes: Any = None,
    scan_output_directions: Any = None, scope: Any, opset: int,
) -> Any:  # fmt: skip
    """A graph over the slices of some operands, others carried along."""
    if opset < 9:
        raise GraphError("Scan is supported from version 9 of the operators on")
    given = _tensors(inputs)
    split = len(given) - num_scan_inputs
    first, xs = given[:split], list(given[split:])
    for k in range(num_scan_inputs):
        axis = scan_input_axes[k] if scan_input_axes else 0
        xs[k] = gf.movedim(xs[k], axis, 0) if axis else xs[k]
        if scan_input_directions and scan_input_directions[k]:
            xs[k] = gf.flip(xs[k], (0,))

    def step(state: Any, items: Any) -> Any:
        found = _tensors(scope.run(body, (*state, *items)))
        return found[:split], found[split:]

    last, results = gf.scan(step, first, tuple(xs))
    made = list(results)
    for k in range(len(made)):
        if scan_output_directions and scan_output_directions[k]:
            made[k] = gf.flip(made[k], (0,))
        axis = scan_output_axes[k] if scan_output_axes else 0
        made[k] = gf.movedim(made[k], 0, axis) if axis else made[k]
    return (*last, *made)
