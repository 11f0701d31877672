"""Control flow and groups: operations that carry closed graphs, *regions*.

A region's inputs are operands of the operation, one for one; its outputs make
the result.  ``cond``, ``while_loop`` and ``scan`` always yield a tuple, which
``get`` takes apart; ``fused`` yields a tensor when its body has one output.

Gradients of ``cond`` and ``scan`` are whole graphs, made by the graph pass
(:mod:`graphflow.passes.autodiff`), which these records cannot build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.errors import DTypeError, GraphError, ShapeError
from graphflow.ir.dims import Dim, evaluate_dim
from graphflow.ir.graph import Graph
from graphflow.ir.op import (
    Application,
    Array,
    BatchRule,
    Builder,
    Entries,
    Kind,
    OpDef,
    OpTests,
    register,
)
from graphflow.ir.ops.batches import item
from graphflow.ir.ops.rules import Attrs, check_tensors, spelled
from graphflow.ir.types import TensorType, TupleType, Type, bool_

Types = Sequence[TensorType]
NO_TESTS = OpTests(dtypes=(), gradient=False)


def _control(
    name: str,
    summary: str,
    infer: Callable[[Sequence[Any], Attrs], Type],
    reference: Callable[..., Any],
    batched: BatchRule | None = None,
) -> OpDef:
    def no_rule(b: Builder, n: Application, ct: Any, operand: int) -> Any:
        raise GraphError(
            f"the gradient of {name} is a graph of its own; differentiate the graph "
            "that holds it (gf.grad) instead of a recorded history"
        )

    return register(
        OpDef(
            name=name,
            kind=Kind.CONTROL,
            summary=summary,
            infer=infer,
            reference=reference,
            vjp=no_rule,
            batched=batched,
            tests=NO_TESTS,
        )
    )


# ---- regions -------------------------------------------------------------------------


def _region(name: str, types: Types, attrs: Attrs, key: str, inputs: Sequence[Type]) -> Graph:
    """The region ``key``, checked to be closed and to take ``inputs``."""
    region = attrs.get(key)
    if not isinstance(region, Graph):
        raise GraphError(f"{spelled(name, types)}: {key} must be a graph, not {region!r}")
    if region.state or region.updates:
        raise GraphError(f"{spelled(name, types)}: {key} has state; pass it as an operand")
    takes = [n.type for n in region.inputs]
    if takes != list(inputs):
        raise GraphError(
            f"{spelled(name, types)}: {key} takes {spelled('', takes)}, "
            f"but is given {spelled('', inputs)}"
        )
    return region


def _results(region: Graph) -> list[TensorType]:
    return [n.tensor_type for n in region.outputs]


def _expect(name: str, types: Types, key: str, found: Sequence[Type], want: Sequence[Type]) -> None:
    if list(found) != list(want):
        raise GraphError(
            f"{spelled(name, types)}: {key} yields {spelled('', found)}, "
            f"but must yield {spelled('', want)}"
        )


def _expect_condition(name: str, types: Types, type: Type) -> None:
    if type != TensorType(bool_, ()):
        raise DTypeError(f"{spelled(name, types)}: the condition must be bool[], not {type}")


def _count(name: str, types: Types, attrs: Attrs, key: str) -> int:
    """The attribute ``key``: how many operands, at most all of them."""
    value = attrs.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= len(types):
        raise GraphError(f"{spelled(name, types)}: {key} must count operands, not {value!r}")
    return value


def _call(region: Any, operands: Iterable[Array]) -> tuple[Array, ...]:
    """Run a region: the interpreter passes a function, anybody else the graph itself."""
    if isinstance(region, Graph):
        from graphflow.ir.interp import interpret

        return interpret(region, tuple(operands)).outputs
    outputs: tuple[Array, ...] = region(*operands)
    return outputs


# Rules for batches, which few programs need:


def _both_branches(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    from graphflow.ir.ops.batched_control import both_branches

    return both_branches(b, op, n, entries)


def _all_steps(b: Builder, op: OpDef, n: Application, entries: Entries) -> Any:
    from graphflow.ir.ops.batched_control import all_steps

    return all_steps(b, op, n, entries)


# ---- cond ----------------------------------------------------------------------------


def _infer_cond(types: Types, attrs: Attrs) -> TupleType:
    check_tensors("cond", types)
    if not types:
        raise GraphError("cond(): takes a condition and the operands of its regions")
    _expect_condition("cond", types, types[0])
    then = _region("cond", types, attrs, "then", types[1:])
    otherwise = _region("cond", types, attrs, "otherwise", types[1:])
    _expect("cond", types, "otherwise", _results(otherwise), _results(then))
    return TupleType(tuple(_results(then)))


def _cond(condition: Array, *operands: Array, then: Any, otherwise: Any) -> tuple[Array, ...]:
    return _call(then if condition else otherwise, operands)


COND = _control(
    "cond",
    "The results of region then where the condition (bool[]) holds, else of otherwise.",
    _infer_cond,
    _cond,
    _both_branches,
)

# ---- while_loop ----------------------------------------------------------------------


def _infer_while(types: Types, attrs: Attrs) -> TupleType:
    check_tensors("while_loop", types)
    carried = types[: _count("while_loop", types, attrs, "carried")]
    condition = _region("while_loop", types, attrs, "condition", types)
    if len(condition.outputs) != 1:
        raise GraphError(f"{spelled('while_loop', types)}: condition must yield one bool[]")
    _expect_condition("while_loop", types, condition.outputs[0].type)
    body = _region("while_loop", types, attrs, "body", types)
    _expect("while_loop", types, "body", _results(body), carried)
    return TupleType(tuple(carried))


def _while(*operands: Array, condition: Any, body: Any, carried: int) -> tuple[Array, ...]:
    values, fixed = operands[:carried], operands[carried:]
    while _call(condition, (*values, *fixed))[0]:
        values = _call(body, (*values, *fixed))
    return values


WHILE_LOOP = _control(
    "while_loop",
    "The first carried operands, replaced by region body as long as condition holds.",
    _infer_while,
    _while,
)

# ---- scan ----------------------------------------------------------------------------


def _infer_scan(types: Types, attrs: Attrs) -> TupleType:
    check_tensors("scan", types)
    carried = _count("scan", types, attrs, "carried")
    scanned = _count("scan", types, attrs, "scanned")
    length: Dim = attrs["length"]
    if carried + scanned > len(types) or not isinstance(attrs.get("reverse"), bool):
        raise GraphError(f"{spelled('scan', types)}: more carried and scanned than operands")
    items = []
    for sequence in types[carried : carried + scanned]:
        if sequence.rank < 1 or sequence.shape[0] != length:
            raise ShapeError(
                f"{spelled('scan', types)}: a scanned operand needs {length} items in axis 0"
            )
        items.append(TensorType(sequence.dtype, sequence.shape[1:]))
    takes = [*types[:carried], *items, *types[carried + scanned :]]
    results = _results(_region("scan", types, attrs, "body", takes))
    _expect("scan", types, "body", results[:carried], types[:carried])
    stacked = [TensorType(t.dtype, (length, *t.shape)) for t in results[carried:]]
    return TupleType((*types[:carried], *stacked))


def _scan(
    *operands: Array, body: Any, carried: int, scanned: int, length: int, reverse: bool
) -> tuple[Array, ...]:
    values = operands[:carried]
    sequences, fixed = operands[carried : carried + scanned], operands[carried + scanned :]
    rows: list[tuple[Array, ...]] = []
    for i in reversed(range(length)) if reverse else range(length):
        results = _call(body, (*values, *(s[i] for s in sequences), *fixed))
        values = results[:carried]
        rows.append(results[carried:])
    if not rows:
        graph, sizes = (body, {}) if isinstance(body, Graph) else (body.graph, body.sizes)
        return (*values, *_no_rows(graph, carried, sizes))
    return (*values, *(np.stack(column[::-1] if reverse else column) for column in zip(*rows)))


def _no_rows(body: Graph, carried: int, sizes: Mapping[str, int]) -> list[Array]:
    """What scanning no items stacks."""
    empty = []
    for type in _results(body)[carried:]:
        extents = tuple(evaluate_dim(d, sizes) for d in type.shape)
        empty.append(np.zeros((0, *extents), type.dtype.numpy))
    return empty


SCAN = _control(
    "scan",
    "Region body over the items of the scanned operands: the last carry, the stacked results.",
    _infer_scan,
    _scan,
    _all_steps,
)

# ---- tuples and groups ---------------------------------------------------------------


def _infer_get(types: Sequence[Any], attrs: Attrs) -> TensorType:
    if len(types) != 1 or not isinstance(types[0], TupleType):
        raise GraphError(f"{spelled('get', types)}: takes one operand, a tuple")
    index, items = attrs.get("index"), types[0].items
    if not isinstance(index, int) or not 0 <= index < len(items):
        raise GraphError(f"{spelled('get', types)}: index {index!r} is not in 0 … {len(items) - 1}")
    item = items[index]
    if not isinstance(item, TensorType):
        raise GraphError(f"{spelled('get', types)}: item {index} is no tensor")
    return item


def _get(value: tuple[Array, ...], *, index: int) -> Array:
    return value[index]


GET = _control("get", "Item index of an operation with several results.", _infer_get, _get, item)


def _infer_fused(types: Types, attrs: Attrs) -> Type:
    check_tensors("fused", types)
    if attrs.get("kind") not in ("loop", "contraction"):
        raise GraphError(f"{spelled('fused', types)}: kind {attrs.get('kind')!r} is unknown")
    results = _results(_region("fused", types, attrs, "body", types))
    return results[0] if len(results) == 1 else TupleType(tuple(results))


def _fused(*operands: Array, kind: str, body: Any) -> Any:
    outputs = _call(body, operands)
    return outputs[0] if len(outputs) == 1 else outputs


FUSED = _control(
    "fused",
    "A group of operations that becomes one kernel: the results of region body.",
    _infer_fused,
    _fused,
)
