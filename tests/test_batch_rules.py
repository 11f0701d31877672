"""Operations applied to all entries of a batch: as their references are to one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from op_cases import Case, cases, draw, samples, seed_of

from graphflow.ir.build import NODES, emit, input_node
from graphflow.ir.entries import Walk, one_by_one, rule_of
from graphflow.ir.graph import Graph
from graphflow.ir.interp import interpret
from graphflow.ir.op import Application, Entries, Kind, OpDef, all_ops, lookup
from graphflow.ir.types import TensorType, TupleType, dtype_named, from_numpy_dtype

SIZE = 3
ALONE = {"extent", "iota"}  # generators without operands are the same for all entries
KNOWN_WITHOUT = {
    "all_reduce", "all_reduce_start", "all_reduce_wait", "callback", "while_loop", "fused",
    "winograd", "winograd_gradient", "winograd_taps", "winograd_whole",
}  # fmt: skip
"""Between processes; effects; a loop that would end at another step for each entry; and what only
passes make."""
OPS = [op for op in all_ops() if op.kind not in (Kind.LEAF, Kind.CONTROL) and not op.draws]


def test_all_operations_have_a_rule() -> None:
    ops = [op for op in all_ops() if op.kind is not Kind.LEAF and op.name not in ALONE]
    assert {op.name for op in ops if rule_of(op) is one_by_one} == KNOWN_WITHOUT


def cases_of(op: OpDef) -> Iterator[Case]:
    """The cases of its record in one dtype (that of its samples' arrays if it has none)."""
    if op.tests.dtypes:
        short = "f64" if "f64" in op.tests.dtypes else op.tests.dtypes[0]
        yield from cases(op, (short,))
        return
    for number, sample in enumerate(samples(op)):
        arrays = draw(op, dtype_named("f64"), sample, f"{op.name}-{number}")
        assert arrays is not None
        yield Case(f"{op.name}-{number}", op, dtype_named("f64"), arrays, sample.attrs)


def entries_of(case: Case, position: int) -> list[np.ndarray]:
    """Other operands for each entry, of the same kind: rolled, or in another proportion."""
    array = case.arrays[position]
    if array.dtype.kind in "fc":
        return [np.asarray(array * (1 - 0.25 * k)) for k in range(SIZE)]
    return [np.roll(array.reshape(-1), k).reshape(array.shape) for k in range(SIZE)]


def which(count: int) -> list[tuple[bool, ...]]:
    """The operands that have entries, for up to three of them in all ways."""
    if count > 3:
        return [(True,) * count, *(tuple(i == k for i in range(count)) for k in range(count))]
    return [flags for flags in product((False, True), repeat=count) if any(flags)]


def at_once(case: Case, batched: tuple[bool, ...], operands: list[np.ndarray]) -> Any:
    """The operation on whole operands, with types inferred and checked."""
    whole = [input_node(f"x{i}", typed(a)) for i, a in enumerate(operands)]
    single = [input_node(f"y{i}", typed(a)) for i, a in enumerate(case.arrays)]
    node = emit(case.op, *single, **case.attrs)
    several = isinstance(node.type, TupleType)
    count = len(node.type.items) if isinstance(node.type, TupleType) else 1
    wanted = [emit("get", node, index=i) for i in range(count)] if several else [node]
    known = dict(zip(single, zip(whole, batched, strict=True), strict=True))
    found = Walk(NODES, SIZE, "error", known).of(wanted)
    assert all(own for _, own in found)
    graph = Graph(tuple(whole), tuple(value for value, _ in found))
    return interpret(graph, tuple(operands)).outputs


def typed(array: np.ndarray) -> TensorType:
    return TensorType(from_numpy_dtype(array.dtype), array.shape)


@pytest.mark.parametrize("op", [op for op in OPS if rule_of(op) is not one_by_one], ids=repr)
def test_all_entries_at_once(op: OpDef) -> None:
    for case in cases_of(op):
        each = [entries_of(case, i) for i in range(len(case.arrays))]
        for batched in which(len(case.arrays)):
            operands = [
                np.stack(e) if own else a
                for e, own, a in zip(each, batched, case.arrays, strict=True)
            ]
            with np.errstate(all="ignore"):
                found = at_once(case, batched, operands)
                rows = [
                    op.reference(
                        *(e[k] if own else a
                          for e, own, a in zip(each, batched, case.arrays, strict=True)),
                        **case.attrs,
                    )
                    for k in range(SIZE)
                ]  # fmt: skip
            expected = zip(*rows, strict=True) if isinstance(rows[0], tuple) else [rows]
            for value, column in zip(found, expected, strict=True):
                where = f"{case.label} {batched} (seed {seed_of(case.label)})"
                wanted = np.stack(column)
                assert value.shape == wanted.shape, where
                np.testing.assert_allclose(value, wanted, 1e-9, 1e-11, err_msg=where)


def test_an_operation_without_a_rule_runs_once_for_each_entry() -> None:
    x = input_node("x", TensorType(dtype_named("f64"), (3, 4)))
    whole = input_node("whole", TensorType(dtype_named("f64"), (5, 3, 4)))
    node = emit("flip", x, axes=(1,))
    application = Application((whole,), node.type, node.attrs)
    with pytest.warns(UserWarning, match=r"flip has no form for batches.*5 entries"):
        made = one_by_one(NODES, lookup("flip"), application, Entries(5, (True,)))
    values = np.random.default_rng(0).standard_normal((5, 3, 4))
    (found,) = interpret(Graph((whole,), (made,)), (values,)).outputs
    np.testing.assert_array_equal(found, values[:, :, ::-1])
